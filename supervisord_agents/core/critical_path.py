"""When each task of a graph may start and must start, as far as it is only dependencies that hold it up.

The critical path method (J. E. Kelley, M. R. Walker, "Critical-path planning and scheduling", 1959): a pass forward gives the
earliest start of each task, a pass backward the latest one that does not delay the end of the graph, and their difference is its
slack. What has ended counts with its real times, what runs with what is left of its estimate, what waits with its estimate.

All is taken to succeed. What runs only if something fails is therefore taken to be cancelled, and takes no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from supervisord_agents.core.graph import dependencies_first
from supervisord_agents.core.model import State
from supervisord_agents.core.picture import Node, Part
from supervisord_agents.core.policy import EDGE_RULES

ROUNDING_S = 1e-6
"""Slack below this is none: paths of equal length differ in the last digits."""


class Times(msgspec.Struct, eq=False):
    """Of one task, in seconds from now on: what is past is negative."""

    est: float
    """Earliest start, or the real one."""
    end: float
    """Earliest end, or the real one."""
    needed: bool = True
    """False: it runs only if another task fails."""
    slack: float = 0.0
    """By how much it may be late, or take longer, without delaying the end of the graph."""
    critical: bool = False

    @property
    def lst(self) -> float:
        """Latest start; of what runs or has ended, the latest that it could have been."""
        return self.est + self.slack


class CriticalPath:
    """Of the nodes of a picture (core.picture). `times` has one for each node, in their order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self._befores = [[(place, when) for place, when in node.befores if not nodes[place].ended] for node in nodes]
        self.order = dependencies_first([[place for place, _ in befores] for befores in self._befores])
        """Places, dependencies before dependents; without what is on a cycle, or behind one."""
        self.times = [Times(node.start, node.end if node.ended else node.start) for node in nodes]
        self.waits: list[Sequence[int]] = [()] * len(nodes)
        """The places of what each waits for; of what is not needed only of that which decides so."""
        for place in self.order:
            self._forward(place)
        self.end = max((self.times[place].end for place in self.order if self.nodes[place].open), default=0.0)
        """Of the open part of the graph, if there were always a free worker."""
        self._backward()
        self.path = self._path()
        """Places, first to last: what decides when the graph ends, from its first task on."""

    @property
    def cyclic(self) -> bool:
        """Whether some tasks wait for themselves."""
        return len(self.order) < len(self.nodes)

    def _forward(self, place: int) -> None:
        node, times = self.nodes[place], self.times[place]
        if node.ended:
            return
        if node.running:
            times.end = max(0.0, node.start + node.estimate_s)
            return
        befores = self._befores[place]
        against = [before for before, when in befores if EDGE_RULES[when][self._outcome(before)] is not None]
        times.needed = not against
        if against:
            self.waits[place] = [min(against, key=lambda before: self.times[before].end)]
        else:
            self.waits[place] = [before for before, _ in befores]
        times.est = max([0.0, node.not_before, *(self.times[before].end for before in self.waits[place])])
        times.end = times.est + self.left(place)

    def _outcome(self, place: int) -> State:
        return State.SUCCEEDED if self.times[place].needed else State.CANCELLED

    def left(self, place: int) -> float:
        """The seconds of work that a worker has yet to do for a task; for one that runs, if it takes as long as expected."""
        node, times = self.nodes[place], self.times[place]
        if node.ended or not times.needed:
            return 0.0
        return times.end if node.running else node.estimate_s

    def _backward(self) -> None:
        latest = [max(self.end, times.end) for times in self.times]
        for place in reversed(self.order):
            node, times = self.nodes[place], self.times[place]
            if node.ended:
                continue
            times.slack = latest[place] - times.end
            times.critical = node.part is not Part.RIVAL and times.needed and times.slack <= ROUNDING_S
            for before in self.waits[place]:
                latest[before] = min(latest[before], times.lst)

    def _path(self) -> list[int]:
        """Backwards from what ends last, by what each waits for, or waited for, last."""
        ends = [place for place in self.order if self.nodes[place].part is Part.INSIDE and self.times[place].needed]
        still = [place for place in ends if self.nodes[place].open]
        place = max(still or ends, key=lambda place: self.times[place].end, default=-1)
        path: list[int] = []
        while place >= 0:
            if self.times[place].needed:
                path.append(place)
                self.times[place].critical = True
            place = self._deciding(place)
        return path[::-1]

    def _deciding(self, place: int) -> int:
        before = max(self.waits[place], key=lambda before: self.times[before].end, default=-1)
        if before >= 0 and self.times[before].end == self.times[place].est:
            return before
        return self.nodes[place].last

    def work(self) -> dict[str, float]:
        """The seconds of work left of the graph, by pool."""
        work: dict[str, float] = {}
        for place, node in enumerate(self.nodes):
            if node.open:
                work[node.pool] = work.get(node.pool, 0.0) + self.left(place)
        return work

    def bound(self, workers: Mapping[str, int]) -> float:
        """No schedule ends earlier: the critical path, or the work of a pool shared by all of its workers."""
        return max([self.end, *(work / workers[pool] for pool, work in self.work().items() if workers.get(pool))])
