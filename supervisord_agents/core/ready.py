"""The ready tasks of every pool, best first: priority, then longest remaining path, then order of submission.

Longest path first is Graham's list scheduling by critical path (R. L. Graham, "Bounds on multiprocessing timing anomalies",
1969): what delays the end of a graph most is started first.
"""

from __future__ import annotations

import heapq

from supervisord_agents.core.task import Task

_Entry = tuple[int, float, int, Task]
_SLACK = 1024
"""Stale entries allowed beyond the live ones before a heap is rebuilt; rebuilding this rarely costs O(1) an entry."""


class ReadyQueue:
    """One heap a pool with lazy deletion: a task's valid entry is its `ready_entry`, all others are stale."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[_Entry]] = {}
        self._waiting: dict[str, int] = {}

    def waiting(self, pool: str) -> int:
        """How many tasks of the pool are ready."""
        return self._waiting.get(pool, 0)

    def pools(self) -> list[str]:
        """The pools that ever had a ready task."""
        return list(self._heaps)

    def push(self, task: Task) -> None:
        """Add the task, or give it its new place after its remaining path grew."""
        pool = task.pool
        heap = self._heaps.get(pool)
        if heap is None:
            heap = self._heaps[pool] = []
            self._waiting[pool] = 0
        if task.ready_entry is None:
            self._waiting[pool] += 1
        entry = (task.priority, -task.rest_s, task.order, task)
        task.ready_entry = entry
        heapq.heappush(heap, entry)
        if len(heap) > 2 * self._waiting[pool] + _SLACK:
            heap[:] = [kept for kept in heap if kept[3].ready_entry is kept]
            heapq.heapify(heap)

    def discard(self, task: Task) -> None:
        """Take the task out, if it is in."""
        if task.ready_entry is not None:
            task.ready_entry = None
            self._waiting[task.pool] -= 1

    def first(self, pool: str, count: int) -> list[Task]:
        """The best `count` tasks of the pool, in order; they stay in the queue."""
        heap = self._heaps.get(pool)
        found: list[_Entry] = []
        while heap and len(found) < count:
            entry = heapq.heappop(heap)
            if entry[3].ready_entry is entry:
                found.append(entry)
        if heap is not None:
            for entry in found:
                heapq.heappush(heap, entry)
        return [entry[3] for entry in found]
