"""The single writer: events go through here into the journal and the scheduler, decisions come out once they are durable.

An event changes the state in memory at once, in the same turn as its record is appended. What follows from it (answers, launches,
notifications) is released in order when its record is on disk, so nothing observable ever runs ahead of the journal.

An engine that has failed, because the journal broke or an event could not be applied, stays so: it takes and releases no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

import structlog

from supervisord_agents.core.backlog import Work
from supervisord_agents.core.events import Advanced, AnyEvent, Changed, Decision, Paced, encode_event
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.errors import DiskFull, JournalError
from supervisord_agents.journal.committer import Committer
from supervisord_agents.journal.journal import again

STEP = 1_000
"""Tasks and edges that one event looks at, once there are more tasks than that (core.backlog)."""
RELEASE_AT_ONCE = 128
"""Decisions carried out in one turn of the loop: the end of a task costs some 50 µs."""
PATIENCE_S = 0.5
"""How long a record may wait for the disk before the disk counts as stalled, and reads no longer wait for what is not theirs."""
log = structlog.get_logger()
Release = Callable[[int, Decision], None]
T = TypeVar("T")


class Fed(NamedTuple):
    """An event that was taken: its journal sequence, and its decisions, which are carried out when it is durable."""

    sequence: int
    decisions: list[Decision]


class Growth(NamedTuple):
    """How much the journal has grown: records, and the bytes of their payloads."""

    records: int = 0
    bytes: int = 0


class Engine:
    """Feeds the scheduler and gates its decisions. All methods belong to the loop's thread.

    `release` carries out one decision; if it raises, that is logged and the others follow all the same. `grown` is how much a
    start had to replay.
    """

    def __init__(self, scheduler: Scheduler, committer: Committer, clock: Clock, release: Release, grown: Growth) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self._grown_records, self._grown_bytes = grown
        self._committer = committer
        self._release = release
        self._held: deque[tuple[int, list[Decision], float]] = deque()
        """Not yet durable, or not wholly carried out: sequence, decisions, and when it was fed."""
        self._carried_out = 0
        """Decisions of the first that is held."""
        self._broken = asyncio.Event()
        self._appended = committer.durable
        self._released = committer.durable
        self._waiting: deque[tuple[int, asyncio.Future[Any], Any]] = deque()
        """Sequence, who waits for it, and what they are given."""
        self._failure: JournalError | None = None
        self._pump: asyncio.Task[None] | None = None
        """Carries out the scheduler's backlog, while there is one."""
        self._stepped = asyncio.Event()
        committer.news = self._advance

    @property
    def sequence(self) -> int:
        """Of the last record appended."""
        return self._appended

    @property
    def grown(self) -> Growth:
        """Since the last snapshot."""
        return Growth(self._grown_records, self._grown_bytes)

    def covered(self, growth: Growth) -> None:
        """A snapshot holds that much of what `grown` said."""
        self._grown_records -= growth.records
        self._grown_bytes -= growth.bytes

    def feed(self, event: AnyEvent, *, urgent: bool = True) -> Fed:
        """Record an event and apply it; gives its sequence number, for `released`, and what it decided.

        Raises DiskFull for an event that is not urgent while space is short, JournalError when the engine has failed; in both
        cases nothing has changed. Raises JournalError also if the event cannot be applied, and then the engine has failed.
        """
        if self._failure is not None:
            raise again(self._failure)
        now = self.clock.now()
        record = encode_event(event, now)
        sequence = self._committer.append(record, urgent=urgent)
        self._appended = sequence
        self._grown_records += 1
        self._grown_bytes += len(record)
        try:
            decisions = self.scheduler.handle(event, now)
        except Exception as error:
            raise self._fail(_not_applied(event, sequence, error)) from error
        self._held.append((sequence, decisions, now))
        self.resume()
        return Fed(sequence, decisions)

    def resume(self) -> None:
        """See to it that the scheduler works in steps once that matters, and that what it has left to do is done."""
        scheduler = self.scheduler
        if scheduler.busy and self._pump is None:
            self._pump = self._loop.create_task(self._carry_out_backlog())
        elif scheduler.step != STEP and len(scheduler.tasks) > STEP:
            self.feed(Paced(step=STEP))

    async def _carry_out_backlog(self) -> None:
        try:
            while self.scheduler.busy:
                await self.released(self.feed(Advanced()).sequence)
                self._tell_of_step()
        except JournalError as error:
            log.error("backlog_left", error=str(error), kept="in the journal, for the next start")
        finally:
            self._pump = None
            self._tell_of_step()

    def _tell_of_step(self) -> None:
        stepped, self._stepped = self._stepped, asyncio.Event()
        stepped.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise again(self._failure)

    async def idle(self) -> None:
        """Return when the scheduler has no backlog; raises JournalError if the engine failed before that."""
        while self.scheduler.busy:
            self._check()
            await self._stepped.wait()

    async def carried_out(self, work: Work) -> None:
        """Return when all that it changes is released; raises JournalError if the engine failed before that."""
        while not work.over:
            self._check()
            await self._stepped.wait()
        await self.settled()

    async def released(self, sequence: int) -> None:
        """Return when the record is durable and all that follows from it has been carried out.

        Raises JournalError if the engine failed before that.
        """
        if self._released < sequence:
            await self.answer(sequence, None)

    def answer(self, sequence: int, answer: T) -> asyncio.Future[T]:
        """A future that gives the answer when the record is durable and all that follows from it has been carried out.

        It raises JournalError if the engine failed before that.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._released >= sequence:
            future.set_result(answer)
        elif self._failure is not None:
            future.set_exception(again(self._failure))
        else:
            self._waiting.append((sequence, future, answer))
        return future

    async def settled(self) -> None:
        """Return when everything fed so far is released."""
        await self.released(self._appended)

    async def settled_for(self, tasks: Collection[str]) -> None:
        """As `settled`, but on a disk that stalls only for what changes these tasks: others can be told of meanwhile."""
        if not self._stalled:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    return await self.settled()
        await self.released(self._newest_about(tasks))

    @property
    def waiting(self) -> tuple[int, float]:
        """How many records wait for a disk that stalls, and the first of them for how many seconds; else (0, 0.0)."""
        return (self._appended - self._released, self._lag_s) if self._stalled else (0, 0.0)

    @property
    def _lag_s(self) -> float:
        return self.clock.now() - self._held[0][2] if self._held else 0.0

    @property
    def _stalled(self) -> bool:
        return self._lag_s >= PATIENCE_S

    def _newest_about(self, tasks: Collection[str]) -> int:
        """The last record not yet durable that changes one of them; 0 if none does."""
        names = frozenset(tasks)
        for sequence, decisions, _ in reversed(self._held):
            if any(isinstance(decision, Changed) and decision.task in names for decision in decisions):
                return sequence
        return 0

    async def run(self) -> None:
        """Wait until cancelled, which ends the engine; raises JournalError when it has failed."""
        try:
            await self._broken.wait()
        except BaseException as error:
            self._fail(_ended(error))
            raise
        assert self._failure is not None
        raise again(self._failure)

    def _advance(self) -> None:
        """Release what has become durable."""
        if self._failure is not None:
            return
        try:
            self._release_durable()
        except JournalError as error:
            self._fail(error)
        except Exception as error:
            self._fail(_ended(error))
        if self._committer.failure is not None:
            self._fail(again(self._committer.failure))

    def _release_durable(self) -> None:
        durable, left = self._committer.durable, RELEASE_AT_ONCE
        while left > 0 and self._held and self._held[0][0] <= durable:
            sequence, decisions, _ = self._held[0]
            some = decisions
            if self._carried_out or len(decisions) > left:
                some = decisions[self._carried_out : self._carried_out + left]
            for decision in some:
                self._carry_out(sequence, decision)
            left -= len(some)
            self._carried_out += len(some)
            if self._carried_out == len(decisions):
                self._held.popleft()
                self._carried_out = 0
                self._released = sequence
        if left <= 0 and self._held and self._held[0][0] <= durable:
            self._loop.call_soon(self._advance)
        while self._waiting and self._waiting[0][0] <= self._released:
            _, future, answer = self._waiting.popleft()
            if not future.done():
                future.set_result(answer)

    def _carry_out(self, sequence: int, decision: Decision) -> None:
        try:
            self._release(sequence, decision)
        except Exception as error:
            if isinstance(error, JournalError) and not isinstance(error, DiskFull):
                raise
            # One decision that fails must not take all others with it: the task that it is about is stuck, and the log says so.
            log.critical("decision_not_carried_out", sequence=sequence, decision=repr(decision)[:500], exc_info=error)

    def _fail(self, error: JournalError) -> JournalError:
        """Keep why, tell all who wait, and have `run` end; gives the first failure."""
        if self._failure is None:
            self._failure = error
        while self._waiting:
            _, future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(again(self._failure))
        self._broken.set()
        return self._failure


def _not_applied(event: AnyEvent, sequence: int, error: Exception) -> JournalError:
    return JournalError(
        f"record {sequence}, {type(event).__name__}, could not be applied: {error!r}.",
        kept="Nothing that was acknowledged is lost.",
        hint="This is a bug: please report it with the log.",
    )


def _ended(error: BaseException) -> JournalError:
    """For who waits for an engine that was cancelled, or stopped at a bug."""
    if isinstance(error, asyncio.CancelledError):
        return JournalError("the supervisor is stopping.", kept="Nothing that was acknowledged is lost.")
    return JournalError(f"the supervisor stops at a bug: {error!r}.", kept="Nothing that was acknowledged is lost.")
