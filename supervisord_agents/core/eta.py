"""When a graph will have ended, as a range.

Errors of estimates along the critical path are taken to be independent, so that their squares add up (PERT: D. G. Malcolm,
J. H. Roseboom, C. E. Clark, W. Fazar, "Application of a technique for research and development program evaluation", 1959). Where
there are fewer workers than work, what decides the end is a longer chain of the same kind of tasks: its spread grows with the
square root of its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from supervisord_agents.core.critical_path import CriticalPath
from supervisord_agents.core.forecast import Forecast
from supervisord_agents.core.picture import Node

Spread = tuple[float, float]
"""Parts of an estimate between which the real duration lies in about eight of ten cases, such as (0.5, 2.0)."""
USUAL_SPREAD: Spread = (0.5, 2.0)


class Eta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Seconds from now on: in about eight of ten cases between `low_s` and `high_s`."""

    low_s: float
    usual_s: float
    high_s: float
    unknown: int = 0
    """Open tasks that nobody knows how long they take: they count as one second, and the end may be far later."""
    cut: bool = False
    """The budget's time ends within the range, or before it, and with it all that is left."""
    late: int = 0
    """Running tasks that have taken longer than nine of ten do: they count as about to end."""

    @property
    def text(self) -> str:
        """In words, such as `in about 12 min (between 8.0 min and 30 min)`."""
        if self.says_nothing(self.usual_s):
            return f"not known, for {self.doubt}"
        about = f"in about {seconds(self.usual_s)}"
        if self.high_s - self.low_s >= 1:
            about += f" (between {seconds(self.low_s)} and {seconds(self.high_s)})"
        return about + self.later

    def says_nothing(self, end_s: float) -> bool:
        """Whether an end that soon is only what is left of what nobody knows."""
        return end_s < 1 and bool(self.doubt) and not self.cut

    @property
    def later(self) -> str:
        """In words, to be put behind a time: what may make it another; empty if nothing is known of."""
        if self.cut:
            return f"; after {seconds(self.high_s)} the budget's time is over, which ends all that is left"
        return f", or later: {self.doubt}" if self.doubt else ""

    @property
    def doubt(self) -> str:
        """In words: what may make the end far later; empty if nothing is known of."""
        reasons = []
        if self.unknown:
            whose = f"{self.unknown:,} of the open tasks take" if self.unknown > 1 else "one of the open tasks takes"
            reasons.append(f"nobody knows how long {whose}")
        if self.late:
            whose = f"{self.late:,} tasks have" if self.late > 1 else "one task has"
            reasons.append(f"{whose} run longer than expected")
        return " and ".join(reasons)


def bounded(eta: Eta | None, left_s: float) -> Eta:
    """Of a graph whose budget has so much time left; what would never end ends then."""
    if eta is None:
        return Eta(low_s=left_s, usual_s=left_s, high_s=left_s, cut=True)
    if not eta.doubt and eta.high_s <= left_s:
        return eta
    return msgspec.structs.replace(
        eta,
        low_s=min(eta.low_s, left_s),
        usual_s=min(eta.usual_s, left_s),
        high_s=left_s if eta.doubt else min(eta.high_s, left_s),
        cut=True,
    )


def seconds(value: float) -> str:
    """Such as `0.4 s`, `12 s`, `2.5 min`, `30 min`, `3.0 h`."""
    value = max(value, 0.0) + 0.0  # which has no sign
    if value < 10:
        return f"{value:.1f} s"
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f} {name}"
    return f"{value:.0f} s"


def eta_of(plan: CriticalPath, forecast: Forecast, spread: Callable[[Node], Spread]) -> Eta | None:
    """None: never, as things are."""
    usual_s = forecast.end
    if usual_s is None:
        return None
    below = above = 0.0
    for place in plan.path:
        node = plan.nodes[place]
        if node.ended or not plan.times[place].needed:
            continue
        low, high = spread(node)
        # Of what runs, the whole duration is as uncertain as before it began; what is late may well be as late again.
        late_s = -node.start - node.estimate_s if node.running else 0.0
        below += (node.estimate_s * (1.0 - low)) ** 2
        above += max(node.estimate_s * (high - 1.0), late_s) ** 2
    longer = math.sqrt(max(1.0, usual_s / plan.end)) if plan.end > 0 else 1.0
    return Eta(
        low_s=max(0.0, usual_s - longer * math.sqrt(below)),
        usual_s=usual_s,
        high_s=usual_s + longer * math.sqrt(above),
        unknown=sum(node.open and not node.estimated for node in plan.nodes),
        late=sum(node.running and node.estimated and -node.start > node.estimate_s * spread(node)[1] for node in plan.nodes),
    )
