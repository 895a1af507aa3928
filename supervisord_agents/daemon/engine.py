"""The single writer: events go through here into the journal and the scheduler, decisions come out once they are durable.

An event changes the state in memory at once, in the same turn as its record is appended. What follows from it (answers, launches,
notifications) is released in order when its record is on disk, so nothing observable ever runs ahead of the journal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from supervisord_agents.core.events import AnyEvent, Decision, encode_event
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.journal.committer import Committer

Release = Callable[[int, Decision], None]


class Fed(NamedTuple):
    """An event that was taken: its journal sequence, and its decisions, which are carried out when it is durable."""

    sequence: int
    decisions: list[Decision]


class Engine:
    """Feeds the scheduler and gates its decisions. All methods belong to the loop's thread."""

    def __init__(self, scheduler: Scheduler, committer: Committer, clock: Clock, release: Release) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.records_since_snapshot = 0
        self._committer = committer
        self._release = release
        self._held: deque[tuple[int, list[Decision]]] = deque()
        self._wake = asyncio.Event()
        self._appended = committer.durable
        self._released = committer.durable
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def sequence(self) -> int:
        """Of the last record appended."""
        return self._appended

    def feed(self, event: AnyEvent, *, urgent: bool = True) -> Fed:
        """Record an event and apply it; gives its sequence number, for `released`, and what it decided.

        Raises DiskFull for an event that is not urgent while space is short, JournalError when the journal is broken; in both
        cases nothing has changed.
        """
        now = self.clock.now()
        sequence = self._committer.append(encode_event(event, now), urgent=urgent)
        self._appended = sequence
        self.records_since_snapshot += 1
        decisions = self.scheduler.handle(event, now)
        self._held.append((sequence, decisions))
        self._wake.set()
        return Fed(sequence, decisions)

    async def released(self, sequence: int) -> None:
        """Return when the record is durable and all that follows from it has been carried out.

        Raises JournalError if the journal broke before that.
        """
        if self._released >= sequence:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((sequence, future))
        await future

    async def settled(self) -> None:
        """Return when everything fed so far is released."""
        await self.released(self._appended)

    async def run(self) -> None:
        """Release decisions as they become durable, until cancelled; raises JournalError when the journal breaks."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._held:
                    await self._committer.wait(self._held[0][0])
                    self._release_durable()
        except BaseException as error:
            self._fail_waiting(error)
            raise

    def _release_durable(self) -> None:
        durable = self._committer.durable
        while self._held and self._held[0][0] <= durable:
            sequence, decisions = self._held.popleft()
            for decision in decisions:
                self._release(sequence, decision)
            self._released = sequence
        while self._waiting and self._waiting[0][0] <= self._released:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def _fail_waiting(self, error: BaseException) -> None:
        for _, future in self._waiting:
            if not future.done():
                if isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
        self._waiting.clear()
