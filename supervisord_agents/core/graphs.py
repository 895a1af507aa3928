"""The graphs held in memory: by id, by the beginning of an id, and in the order of submission, from any place in it.

The tasks of a graph have consecutive orders. Nothing here takes longer for there being a million graphs: the order is kept in
blocks, ids in drawers by how they begin.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, islice

import msgspec

from supervisord_agents.core.task import Task

BLOCK = 512
DRAWER_CHARACTERS = 3
MAX_MEANT = 1_000
"""Graphs looked at for the beginning of an id that says too little."""


class Graph(msgspec.Struct, eq=False, gc=False):
    """Tasks that were submitted together."""

    id: str
    tasks: list[Task]
    key: str = ""
    """The idempotency key it came with."""

    @property
    def first(self) -> int:
        """The order of its first task."""
        return self.tasks[0].order

    @property
    def ended_at(self) -> float:
        """When the last of its tasks ended; 0.0 while one is open."""
        times = [task.ended_at for task in self.tasks]
        return max(times) if all(times) else 0.0


class Graphs:
    """All graphs of a table. Iterating gives their ids in the order of submission."""

    def __init__(self) -> None:
        self._by_id: dict[str, Graph] = {}
        self._blocks: list[list[Graph]] = []
        self._drawers: dict[str, list[Graph]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, graph: str) -> bool:
        return graph in self._by_id

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __getitem__(self, graph: str) -> Graph:
        return self._by_id[graph]

    def tasks(self, graph: str) -> list[Task]:
        """The tasks of a graph, in its order; empty for an unknown one."""
        found = self._by_id.get(graph)
        return found.tasks if found is not None else []

    def values(self) -> Iterator[Graph]:
        """In the order of submission."""
        return iter(self._by_id.values())

    def add(self, graph: Graph) -> None:
        """Take up a graph behind all others."""
        self._by_id[graph.id] = graph
        name = graph.id[:DRAWER_CHARACTERS]
        if name in self._drawers:
            self._drawers[name].append(graph)
        else:
            self._drawers[name] = [graph]
        if self._blocks and len(self._blocks[-1]) < BLOCK:
            self._blocks[-1].append(graph)
        else:
            self._blocks.append([graph])

    def remove(self, id: str) -> Graph:
        """Forget a graph; gives it. Raises KeyError."""
        graph = self._by_id.pop(id)
        drawer = self._drawers[id[:DRAWER_CHARACTERS]]
        drawer.remove(graph)
        if not drawer:
            del self._drawers[id[:DRAWER_CHARACTERS]]
        place = self._block_before(graph.first + 1)
        self._blocks[place].remove(graph)
        if not self._blocks[place]:
            del self._blocks[place]
        return graph

    def before(self, order: int, count: int) -> list[Task]:
        """At most `count` tasks of an order below `order`, newest first."""
        found: list[Task] = []
        for block in reversed(self._blocks[: self._block_before(order) + 1]):
            for graph in reversed(block):
                if graph.first < order:
                    end = min(order - graph.first, len(graph.tasks))
                    found += graph.tasks[max(end - count + len(found), 0) : end][::-1]
                    if len(found) == count:
                        return found
        return found

    def meant(self, head: str) -> list[Graph]:
        """The graphs whose id begins so, in no order; at most MAX_MEANT."""
        if len(head) >= DRAWER_CHARACTERS:
            drawer = self._drawers.get(head[:DRAWER_CHARACTERS], [])
            return list(islice((graph for graph in drawer if graph.id.startswith(head)), MAX_MEANT))
        drawers = (drawer for name, drawer in self._drawers.items() if name.startswith(head))
        return list(islice(chain.from_iterable(drawers), MAX_MEANT))

    def _block_before(self, order: int) -> int:
        """The last block that begins below this order; -1: none does."""
        return bisect_left(self._blocks, order, key=lambda block: block[0].first) - 1
