"""What the gateway says about what it did not let through: enough to act on, and never a flood."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import structlog

FIRST = 10
"""So many refusals of a task are told one by one."""
PAUSE_S = 5.0
"""Of further ones, one line in this time says how many there were."""

log = structlog.get_logger()


class Timer(Protocol):
    """What `loop.call_later` gives."""

    def cancel(self) -> None: ...


def _later(delay_s: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_s, call)


class Telling:
    """The refusals of one worker. After a pause without any, the next one is told at once again."""

    def __init__(self, tell: Callable[[str, str], None], later: Callable[[float, Callable[[], None]], Timer] = _later) -> None:
        """`tell(task, line)` is the way to the logs; `later` replaces the loop's clock in tests."""
        self._tell = tell
        self._later = later
        self._task = ""
        self._room = FIRST
        self._held = 0
        self._last = ""
        self._pause: Timer | None = None

    def tell(self, task: str, line: str) -> None:
        """Say it, or count it."""
        if task != self._task:
            self.flush()
            self._task = task
        if not self._room:
            self._held += 1
            self._last = line
            return
        self._room -= 1
        self._tell(task, line)
        if not self._room:
            self._pause = self._later(PAUSE_S, self._pause_is_over)

    def flush(self) -> None:
        """Say what was counted, and begin anew: another task, or the end of the worker."""
        self._say_held()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._room = FIRST

    def _pause_is_over(self) -> None:
        self._pause = None
        if not self._held:
            self._room = 1
            return
        self._say_held()
        self._pause = self._later(PAUSE_S, self._pause_is_over)

    def _say_held(self) -> None:
        if self._held:
            self._tell(self._task, f"… and {self._held} more; the last: {self._last}")
        self._held = 0


class ServerLog(logging.LoggerAdapter[logging.Logger]):
    """What the HTTP server says about a worker's malformed requests: for debugging only, and on one line each."""

    def __init__(self, owner: str) -> None:
        super().__init__(logging.getLogger(__name__))
        self._owner = owner

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        error = kwargs.get("exc_info")
        said = str(msg) % args if args else str(msg)
        log.debug("gateway_http", owner=self._owner, said=said, error=type(error).__name__ if error else "")
