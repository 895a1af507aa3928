"""What running attempts have said last, and for how long some have said nothing."""

from __future__ import annotations

import time
from typing import NamedTuple

from supervisord_agents.config import Tasks
from supervisord_agents.core.model import Failure
from supervisord_agents.core.stalls import Stalled, Stalls
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.clock import Clock, Read
from supervisord_agents.errors import ErrorCode


class Sign(NamedTuple):
    """Of a running attempt."""

    fraction: float = -1.0
    """How far it is, 0 to 1; -1: it has not said."""
    message: str = ""
    at: float = 0.0
    """When it last made progress, on the supervisor's clock."""


NO_SIGN = Sign()


class Signs:
    """Output, reports of progress, tokens and steps are progress; heartbeats are not.

    `read` is a clock that stands still while the machine sleeps, as CLOCK_MONOTONIC does (clock_gettime(2)).
    """

    def __init__(self, config: Tasks, read: Read = time.monotonic) -> None:
        self._stalls = Stalls(config.stall_s, config.stalls_s)
        self._read = read
        self._said: dict[str, tuple[float, str]] = {}
        self._clock: Clock

    def attach(self, clock: Clock) -> None:
        """Tell times on this clock."""
        self._clock = clock

    def begun(self, task: Task) -> None:
        """Its attempt runs."""
        self._stalls.begun(task.id, task.attempt, task.spec.type, self._read())

    def over(self, task: str) -> None:
        """Its attempt runs no longer."""
        self._stalls.over(task)
        self._said.pop(task, None)

    def moved(self, task: str) -> None:
        """It has made progress."""
        self._stalls.moved(task, self._read())

    def said(self, task: str, fraction: float, message: str) -> None:
        """It has reported progress."""
        self._said[task] = (fraction, message)
        self.moved(task)

    def get(self, task: str, /) -> Sign:
        """What is known of its attempt."""
        if task not in self._stalls:
            return NO_SIGN
        fraction, message = self._said.get(task, (-1.0, ""))
        return Sign(fraction, message, self._clock.now() - self._stalls.idle_s(task, self._read()))

    def stalled(self, unheard_s: float) -> list[Stalled]:
        """Those that have made no progress for too long, if nothing was heard of anybody for so many seconds."""
        self._stalls.unheard(unheard_s)
        return self._stalls.stalled(self._read())


def failure_of(found: Stalled) -> Failure:
    """What a stalled attempt fails of."""
    return Failure(
        code=ErrorCode.STALLED,
        message=f"no output, progress, tokens or finished step for {found.idle_s:.0f} s; the limit is {found.limit_s:g} s.",
        hint="If it works without a word, allow more: tasks.stall_s, or tasks.stalls_s for its type.",
    )
