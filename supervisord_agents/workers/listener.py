"""What the pools tell of the attempts that their workers make, and to whom."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from supervisord_agents.core.model import Failure
from supervisord_agents.wire import frames


class Listener(Protocol):
    """Who is told what workers do."""

    def attempt_ended(self, worker: str, frame: frames.End) -> bool:
        """Whether the end is with the journal, before all that is told later; False: it is still being written."""

    def attempt_died(self, task: str, attempt: int, failure: Failure) -> None: ...
    def attempt_said(self, frame: frames.Progress | frames.Log | frames.UsageReport | frames.Question) -> None: ...
    def attempt_found(self, task: str, attempt: int, *, told: bool) -> int:
        """The worker of an earlier daemon is there: gives how many bytes of the attempt's output are in the log.

        Without `told` the worker has not got the attempt, and is to be launched again.
        """

    def attempt_stopped(self, frame: frames.End) -> None:
        """What an attempt had come to whose end was decided before; some of its output may be there."""

    def time_passed(self, unheard_s: float) -> None:
        """Once in a heartbeat. For so many seconds of it nothing was heard of anybody, for this process stood still."""

    def slots_changed(self) -> None: ...
    async def settled(self) -> bool:
        """Return when everything told so far is durable, or False if that cannot be."""


class Running(NamedTuple):
    """An attempt that the journal has as running."""

    task: str
    attempt: int
    reusable: bool
    """Whether its worker may take another task after it."""
