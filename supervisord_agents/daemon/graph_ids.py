"""Ids for new graphs: random, and neither in memory nor in the archive."""

from __future__ import annotations

import asyncio
import random

from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon.archivist import Archivist

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_LETTERS = bytes(ord(_ALPHABET[byte % len(_ALPHABET)]) for byte in range(256))
"""From a random byte to a letter."""
_RANDOM_LETTERS = 7
DRAWN = 256
"""At once: each draw of randomness is a system call, and each look into the archive a way to another thread."""
FEW = 64


class GraphIds:
    """A reserve of ids, looked up ahead. One in the reserve stays free: a graph can only have it by taking it."""

    def __init__(self, scheduler: Scheduler, archivist: Archivist, dice: random.Random) -> None:
        self._scheduler = scheduler
        self._archivist = archivist
        self._dice = dice
        self._free: dict[str, None] = {}
        self._drawing: asyncio.Task[None] | None = None

    def take(self) -> str | None:
        """An id, or None when the archive has to be asked first: then see `wait`."""
        if not self._free and self._archivist.empty:
            self._add(self._draw())
        elif len(self._free) <= FEW and self._drawing is None and not self._archivist.empty:
            self._drawing = asyncio.get_running_loop().create_task(self._look_up())
            self._drawing.add_done_callback(_ignored)
        return self._free.popitem()[0] if self._free else None

    async def wait(self) -> str:
        """An id. Raises SupervisorError if the archive cannot be asked."""
        while (id := self.take()) is None:
            assert self._drawing is not None
            await asyncio.shield(self._drawing)
        return id

    async def _look_up(self) -> None:
        try:
            drawn = self._draw()
            for id in await self._archivist.graphs(drawn):
                drawn.remove(id)
            self._add(drawn)
        finally:
            self._drawing = None

    def _draw(self) -> list[str]:
        letters = self._dice.randbytes(_RANDOM_LETTERS * DRAWN).translate(_LETTERS).decode()
        drawn = ["g" + letters[start : start + _RANDOM_LETTERS] for start in range(0, len(letters), _RANDOM_LETTERS)]
        return [id for id in dict.fromkeys(drawn) if not self._scheduler.has_graph(id)]

    def _add(self, ids: list[str]) -> None:
        self._free |= dict.fromkeys(ids)


def _ignored(task: asyncio.Task[None]) -> None:
    """Who waits for it is told of its error; nobody else has to be."""
    if not task.cancelled():
        task.exception()
