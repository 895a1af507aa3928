"""The ready tasks of every pool, best first: urgency, then longest remaining path, then order of submission.

Urgency is the priority, one's own or that of the most urgent task that waits for it, and grows by one for every `ageing_s`
seconds that a task is ready, so that none waits for ever. As all of them age alike, that is a matter of when each became ready:
no entry changes while it waits.

Each agent has a lane of its own in a pool, and so has each list of agents to choose from, so that what may not start is passed
over as a whole.

Longest path first is Graham's list scheduling by critical path (R. L. Graham, "Bounds on multiprocessing timing anomalies",
1969): what delays the end of a graph most is started first.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Sequence
from itertools import islice

from supervisord_agents.core.task import Task

Entry = tuple[int, float, int, Task]
Choices = str | tuple[str, ...]
"""The agent of a task, or those it may have."""
Rank = tuple[int, float, int]
_SLACK = 1024
"""Stale entries allowed beyond the live ones before a heap is rebuilt; rebuilding this rarely costs O(1) an entry."""

_FRONT_LIMIT = 256
"""The front is a sorted list, in which an insertion moves what follows: it stays short."""


def rank(urgency: int, rest_s: float, order: int, ready_at: float, ageing_s: float) -> Rank:
    """The smaller, the sooner is a task started that became ready at `ready_at` (seconds, Unix epoch)."""
    age = int(ready_at // ageing_s) if ageing_s else 0
    return urgency + age, -rest_s, order


class Lane:
    """One agent, or choice of agents, in a pool: a heap, and before it the front, the best entries in order, so that to be asked
    again costs nothing.

    No entry of the heap is better than one of the front.
    """

    __slots__ = ("front", "heap", "waiting")

    def __init__(self) -> None:
        self.front: list[Entry] = []
        self.heap: list[Entry] = []
        self.waiting = 0

    def put(self, entry: Entry) -> None:
        front, heap = self.front, self.heap
        if not front or entry > front[-1]:
            heapq.heappush(heap, entry)
            if len(heap) > 2 * self.waiting + _SLACK:
                heap[:] = [kept for kept in heap if kept[3].ready_entry is kept]
                heapq.heapify(heap)
            return
        bisect.insort(front, entry)
        if len(front) > _FRONT_LIMIT:
            for moved in front[_FRONT_LIMIT // 2 :]:
                heapq.heappush(heap, moved)
            del front[_FRONT_LIMIT // 2 :]

    def best(self, count: int) -> list[Entry]:
        """The first `count` in order, or all."""
        front, heap = self.front, self.heap
        front[:] = [entry for entry in front if entry[3].ready_entry is entry]
        while heap and len(front) < count:
            entry = heapq.heappop(heap)
            if entry[3].ready_entry is entry:
                front.append(entry)
        return front[: max(count, 0)]


class ReadyQueue:
    """The ready tasks of all pools, with lazy deletion: a task's valid entry is its `ready_entry`, all others are stale."""

    def __init__(self, ageing_s: float = 0.0) -> None:
        """A ready task grows more urgent by one in every `ageing_s` seconds; 0: never."""
        self._lanes: dict[str, dict[Choices, Lane]] = {}
        self.ageing_s = ageing_s

    def __len__(self) -> int:
        """Entries held, stale ones too."""
        return sum(len(lane.front) + len(lane.heap) for lanes in self._lanes.values() for lane in lanes.values())

    def waiting(self, pool: str) -> int:
        """How many tasks of the pool are ready."""
        return sum(lane.waiting for lane in self._lanes.get(pool, {}).values())

    def pools(self) -> list[str]:
        """The pools that ever had a ready task."""
        return list(self._lanes)

    def push(self, task: Task) -> None:
        """Add the task, or give it its new place after its remaining path grew."""
        lanes = self._lanes.get(task.pool)
        if lanes is None:
            lanes = self._lanes[task.pool] = {}
        choices = task.choices or task.agent
        lane = lanes.get(choices)
        if lane is None:
            lane = lanes[choices] = Lane()
        if task.ready_entry is None:
            lane.waiting += 1
        entry = (*self.rank(task), task)
        task.ready_entry = entry
        lane.put(entry)

    def rank(self, task: Task) -> Rank:
        """Of a ready task, whose last moment is that of its becoming ready."""
        return rank(task.urgency, task.rest_s, task.order, task.history[-1].at, self.ageing_s)

    def discard(self, task: Task) -> None:
        """Take the task out, if it is in."""
        if task.ready_entry is not None:
            task.ready_entry = None
            self._lanes[task.pool][task.choices or task.agent].waiting -= 1

    def lanes(self, pool: str) -> Iterable[tuple[Choices, Lane]]:
        """The lanes of a pool, in no order."""
        return self._lanes.get(pool, {}).items()

    def first(self, pool: str, count: int) -> list[Task]:
        """The best `count` tasks of the pool, in order; they stay in the queue."""
        return [entry[3] for entry in merged([lane.best(count) for _, lane in self.lanes(pool)], count)]


def merged(bests: Sequence[list[Entry]], count: int) -> Iterable[Entry]:
    """The best `count` of several lanes, in order."""
    return bests[0] if len(bests) == 1 else islice(heapq.merge(*bests), max(count, 0))
