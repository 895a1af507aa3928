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
        # Of what runs, the whole duration is as uncertain as before it began.
        below += (node.estimate_s * (1.0 - low)) ** 2
        above += (node.estimate_s * (high - 1.0)) ** 2
    longer = math.sqrt(max(1.0, usual_s / plan.end)) if plan.end > 0 else 1.0
    return Eta(
        low_s=max(0.0, usual_s - longer * math.sqrt(below)),
        usual_s=usual_s,
        high_s=usual_s + longer * math.sqrt(above),
        unknown=sum(node.open and not node.estimated for node in plan.nodes),
    )
