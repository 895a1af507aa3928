"""Ids of graphs: all different, and of none that there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from supervisord_agents.daemon.graph_ids import DRAWN, FEW, GraphIds
from supervisord_agents.errors import SupervisorError


class Scheduler:
    def __init__(self, known: Sequence[str] = ()) -> None:
        self.known = set(known)

    def has_graph(self, graph: str) -> bool:
        return graph in self.known


class Archivist:
    def __init__(self, known: Sequence[str] = ()) -> None:
        self.known = set(known)
        self.asked = 0
        self.error: Exception | None = None

    @property
    def empty(self) -> bool:
        return not self.known

    async def graphs(self, ids: Sequence[str]) -> list[str]:
        await asyncio.sleep(0)
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [id for id in ids if id in self.known]


def ids_of(scheduler: Scheduler, archivist: Archivist) -> GraphIds:
    anything: Any = (scheduler, archivist)
    return GraphIds(*anything, random.Random(1))


async def drawn(count: int) -> list[str]:
    ids = ids_of(Scheduler(), Archivist())
    return [await ids.wait() for _ in range(count)]


async def test_they_are_all_different() -> None:
    assert len(set(await drawn(3 * DRAWN))) == 3 * DRAWN


async def test_none_is_that_of_a_graph_in_memory_or_in_the_archive() -> None:
    first = await drawn(DRAWN)
    in_memory, archived = first[: DRAWN // 2], first[DRAWN // 2 :]
    ids = ids_of(Scheduler(in_memory), Archivist(archived))
    assert not {await ids.wait() for _ in range(DRAWN)} & set(first)


async def test_the_archive_is_asked_ahead_and_seldom() -> None:
    archivist = Archivist(["gold"])
    ids = ids_of(Scheduler(), archivist)
    assert ids.take() is None
    await ids.wait()
    for _ in range(10 * DRAWN):
        assert ids.take() is not None
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert archivist.asked <= 10 * DRAWN // (DRAWN - FEW) + 2


async def test_an_archive_that_cannot_be_asked_is_told_to_who_waits_and_asked_again() -> None:
    archivist = Archivist(["gold"])
    archivist.error = SupervisorError("no")
    ids = ids_of(Scheduler(), archivist)
    with pytest.raises(SupervisorError):
        await ids.wait()
    archivist.error = None
    assert await ids.wait()
