"""Group commit: one thread syncs the journal while the loop gathers the next batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from enum import Enum

from supervisord_agents.errors import JournalError
from supervisord_agents.journal.journal import Journal
from supervisord_agents.journal.threads import REAL_THREADS, Queue, Threads


class Order(Enum):
    """What the loop tells the thread."""

    FLUSH = "flush"
    RECLAIM = "reclaim"
    STOP = "stop"


class Committer:
    """Makes appended records durable and tells of it. All methods belong to the thread of the running loop.

    What is appended in one turn of the loop, or while a sync is under way, is one batch: the busier, the fewer syncs a record.
    The thread goes on by itself while there is something to sync; only one that rests has to be woken.
    `news` is called when `durable` has moved or the journal has broken (`failure`); it must not raise.
    """

    def __init__(self, journal: Journal, threads: Threads = REAL_THREADS) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self.durable = journal.durable
        """Sequence of the last record known to be on disk."""
        self.failure: JournalError | None = None
        """Why nothing more becomes durable."""
        self.news: Callable[[], None] = lambda: None
        self._busy = False
        self._stopping = False
        self._orders: Queue = threads.queue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threads.start(self._run, "journal")

    def append(self, payload: bytes, *, urgent: bool = True) -> int:
        """Take a record; gives its sequence, which `durable` reaches when it is on disk. Raises as Journal.append."""
        sequence = self._journal.append(payload, urgent=urgent)
        self._start_flush()
        return sequence

    def reclaim(self) -> None:
        """Have the thread see whether the disk has room again (Journal.try_reclaim); `accepting` of the journal tells."""
        self._orders.put(Order.RECLAIM)

    async def aclose(self) -> None:
        """Flush, mark an orderly end and close the journal; one that is broken is only closed.

        Raises JournalError if it breaks in doing so. Harmless when closed already.
        """
        if not self._stopping:
            self._stopping = True
            self._orders.put(Order.STOP)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _start_flush(self) -> None:
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._orders.put, Order.FLUSH)

    def _flushed(self, durable: int, rests: bool) -> None:
        self.durable = durable
        if rests:
            self._busy = False
            if self._journal.sequence > durable and not self._stopping:
                self._start_flush()
        self.news()

    def _failed(self, error: JournalError) -> None:
        self.failure = error
        self.news()

    def _closed(self, durable: int, failure: JournalError | None) -> None:
        self._flushed(durable, rests=True)
        if failure is None:
            self._ended.set_result(None)
            return
        self._failed(failure)
        self._ended.set_exception(failure)

    def _run(self) -> None:
        """The thread: flush when asked, until told to stop or until the journal breaks; close it when told to stop."""
        intact = self._flush_until_stopped()
        while not intact and self._orders.get() is not Order.STOP:
            pass
        failure = None
        try:
            self._journal.close(clean=intact)
        except Exception as error:
            failure = _as_journal_error(error)
        self._tell(self._closed, self._journal.durable, failure)

    def _flush_until_stopped(self) -> bool:
        rests = True
        try:
            while (order := self._next_order(rests)) is not Order.STOP:
                if order is Order.RECLAIM:
                    self._journal.try_reclaim()
                    continue
                durable = self._journal.flush()
                rests = self._journal.sequence == durable
                self._tell(self._flushed, durable, rests)
                self._journal.prepare()
        except Exception as error:
            self._tell(self._failed, _as_journal_error(error))
            return False
        return True

    def _next_order(self, rests: bool) -> Order:
        order: Order = self._orders.get() if rests or not self._orders.empty() else Order.FLUSH
        return order

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        # A loop that is closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


def _as_journal_error(error: Exception) -> JournalError:
    if isinstance(error, JournalError):
        return error
    return JournalError(f"the committer failed: {error!r}.", kept="Nothing that was acknowledged is lost.", hint="This is a bug.")
