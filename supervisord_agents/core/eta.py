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


class Eta(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from now on."""

    low_s: float
    usual_s: float
    high_s: float
    unknown: int = 0
    """Open tasks that nobody knows how long they take: they count as one second, and the end may be far later."""
    cut: bool = False
    """The budget's time ends within the range, or before it, and with it all that is left."""


def bounded(eta: Eta | None, left_s: float) -> Eta:
    """Of a graph whose budget has so much time left; what would never end ends then."""
    if eta is None:
        return Eta(low_s=left_s, usual_s=left_s, high_s=left_s, cut=True)
    if not eta.unknown and eta.high_s <= left_s:
        return eta
    low_s, usual_s, high_s = (min(seconds, left_s) for seconds in (eta.low_s, eta.usual_s, eta.high_s))
    return Eta(low_s=low_s, usual_s=usual_s, high_s=left_s if eta.unknown else high_s, unknown=eta.unknown, cut=True)


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
    )
