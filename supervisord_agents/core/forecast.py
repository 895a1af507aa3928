"""When each task will start and end with the workers that there are: list scheduling, as core.ready does it, run ahead.

All is taken to last as long as expected and to succeed, and every pool to be as large as it may become. Rates, breakers, workers
that are lent and tasks that are not there yet are not foreseen, nor are blocked tasks of other graphs, though they may become
ready meanwhile and come first.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from supervisord_agents.core.critical_path import CriticalPath
from supervisord_agents.core.model import State
from supervisord_agents.core.pauses import Pauses
from supervisord_agents.core.ready import Rank, rank

_END, _READY = 0, 1
Event = tuple[float, int, int]
"""Time, what happens, to which place."""


class Slot(NamedTuple):
    """When a task has its worker, in seconds from now on."""

    start: float
    end: float


class Forecast:
    """`workers` is how many each pool may have; what `pauses` hold is never started; `now` is the moment of the picture."""

    def __init__(self, plan: CriticalPath, workers: Mapping[str, int], pauses: Pauses, now: float, ageing_s: float = 0.0) -> None:
        self._plan = plan
        self._nodes = plan.nodes
        self._pauses = pauses
        self._now = now
        self._ageing_s = ageing_s
        self._free = defaultdict(int, workers)
        self._ready: dict[str, list[tuple[Rank, int]]] = {}
        self._events: list[Event] = []
        self._unmet = [len(befores) for befores in plan.waits]
        self._afters: list[list[int]] = [[] for _ in self._nodes]
        self.slots: list[Slot | None] = [None] * len(self._nodes)
        """For each node of the plan; None: never, as things are."""
        self._begin()
        while self._events:
            self._turn()

    @property
    def end(self) -> float | None:
        """Of the graph; None: never, as things are."""
        ends = [slot.end if slot else None for slot, node in zip(self.slots, self._nodes, strict=True) if node.open]
        return None if None in ends else max((end for end in ends if end is not None), default=0.0)

    def open_slots(self) -> dict[str, Slot | None]:
        """By id, of what is open and is expected to run at all; None: never, as things are."""
        found = zip(self._nodes, self._plan.times, self.slots, strict=True)
        return {node.id: slot for node, times, slot in found if node.open and times.needed}

    def _begin(self) -> None:
        for place in self._plan.order:
            node, times = self._nodes[place], self._plan.times[place]
            for before in self._plan.waits[place]:
                self._afters[before].append(place)
            if node.ended:
                self.slots[place] = Slot(node.start, node.end)
            elif node.running:
                self.slots[place] = Slot(node.start, times.end)
                heapq.heappush(self._events, (times.end, _END, place))
                self._free[node.pool] -= 1
            elif not self._unmet[place]:
                heapq.heappush(self._events, (node.not_before, _READY, place))

    def _turn(self) -> None:
        """All that happens at the same moment, and then what is started in it."""
        now = self._events[0][0]
        touched = set()
        while self._events and self._events[0][0] <= now:
            _, what, place = heapq.heappop(self._events)
            touched.add(self._nodes[place].pool)
            if what == _END:
                self._ended(place, now)
            else:
                self._becomes_ready(place, now)
        for pool in sorted(touched):
            self._start(pool, now)

    def _ended(self, place: int, now: float) -> None:
        if self._plan.times[place].needed:
            self._free[self._nodes[place].pool] += 1
        for after in self._afters[place]:
            self._unmet[after] -= 1
            if self._unmet[after]:
                continue
            if self._plan.times[after].needed:
                heapq.heappush(self._events, (max(now, self._nodes[after].not_before, 0.0), _READY, after))
            else:
                self.slots[after] = Slot(now, now)
                heapq.heappush(self._events, (now, _END, after))

    def _becomes_ready(self, place: int, now: float) -> None:
        node = self._nodes[place]
        if self._pauses.holding_all(node.pool, node.agents) is None:
            ready_at = node.ready_at if node.state is State.READY else self._now + now
            place_in_line = rank(node.urgency, node.rest_s, node.order, ready_at, self._ageing_s)
            heapq.heappush(self._ready.setdefault(node.pool, []), (place_in_line, place))

    def _start(self, pool: str, now: float) -> None:
        ready = self._ready.get(pool, [])
        while ready and self._free[pool] > 0:
            _, place = heapq.heappop(ready)
            self._free[pool] -= 1
            self.slots[place] = Slot(now, now + self._plan.left(place))
            heapq.heappush(self._events, (now + self._plan.left(place), _END, place))
