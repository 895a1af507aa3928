"""Fairness between clients: what holds the loop for long is begun one at a time, and gets half of the loop's time at most."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

LONG_S = 0.001
"""A shorter turn is followed by the next at once."""


class Turns:
    """First come, first served. All methods belong to the running loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._taken = False

    def call(self, callback: Callable[[], None]) -> None:
        """Call it in a later turn of the loop, in which nothing else of this kind is."""
        self._waiting.append(callback)
        if not self._taken:
            self._taken = True
            self._loop.call_soon(self._next)

    async def take(self) -> None:
        """Return in such a turn; it lasts until the caller waits for something."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.call(lambda: None if future.done() else future.set_result(None))
        await future

    def _next(self) -> None:
        if not self._waiting:
            self._taken = False
            return
        began = time.monotonic()
        self._waiting.popleft()()
        # Behind what the callback has woken.
        self._loop.call_soon(self._rest, began)

    def _rest(self, began: float) -> None:
        lasted = time.monotonic() - began
        if self._waiting and lasted >= LONG_S:
            self._loop.call_later(lasted, self._next)
        else:
            self._next()
