"""An archive with nothing in it."""

from __future__ import annotations

from typing import Any, ClassVar

from supervisord_agents.core.model import State


class NoArchive:
    """In the place of daemon.archivist.Archivist: nothing is ever archived."""

    counts: ClassVar[dict[State, int]] = {}
    empty = True
    moves = 0
    note = ""

    async def nothing(self, *_: object) -> list[Any]:
        return []

    async def none(self, *_: object) -> None:
        return None

    async def count(self, *_: object) -> int:
        return 0

    resolve = names = graphs = tasks = page = nothing
    graph_of_key = task = task_of = none

    async def past(self, *_: object) -> tuple[Any, ...]:
        return ()
