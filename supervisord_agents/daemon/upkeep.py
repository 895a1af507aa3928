"""What the daemon does by the clock: due timers, snapshots, the disk, the watchdog."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import structlog

from supervisord_agents.config import Config
from supervisord_agents.core.events import Slept, Ticked
from supervisord_agents.core.model import OPEN_STATES, State
from supervisord_agents.daemon.clock import Sleeps
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.errors import SupervisorError
from supervisord_agents.journal.committer import Committer
from supervisord_agents.journal.journal import Journal
from supervisord_agents.observe import notify
from supervisord_agents.spool.results import ResultStore

MAX_SLEEP_S = 0.25
"""Bounds how late a timer set meanwhile can fire."""
LATE_S = 1.0
"""A turn that comes later than this finds a daemon that was stopped (SIGSTOP, a suspended machine), or starved."""
DISK_CHECK_S = 5.0
SNAPSHOT_BYTES = 256 * 1024 * 1024
"""Records of this size are worth a snapshot, unless the snapshot is so large itself that twice its size is less trouble."""
SNAPSHOT_RETRY_S = 60.0
PIECE_TASKS = 256
"""Encoded in one turn of the loop: less than a millisecond's work."""
PIECE_REST_S = 0.002
"""Between two pieces: the loop and the disk are there for others first."""
COLLECT_S = 600.0
COLLECT_TASKS = 20_000
"""With so many a full collection takes some 20 ms."""
STOP_SNAPSHOT_RECORDS = 10_000
"""Fewer are left as they are at an orderly stop: replaying them is quick, and resume tokens of subscribers point into them."""
Pull = Callable[[Iterator[bytes], asyncio.AbstractEventLoop], Iterator[bytes]]
log = structlog.get_logger()


def in_words(counts: Mapping[State, int]) -> str:
    """The tasks that have not ended, for the one line of `systemctl status`."""
    open_states = [state for state in OPEN_STATES if counts.get(state)]
    return ", ".join(f"{counts[state]} {state}" for state in open_states) or "no task is open"


def pulled(pieces: Iterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """For the thread that writes: each piece is encoded in the loop, in a turn of its own, when the one before is written."""

    async def pull() -> bytes:
        return next(pieces, b"")

    while piece := asyncio.run_coroutine_threadsafe(pull(), loop).result():
        yield piece
        time.sleep(PIECE_REST_S)


class Upkeep:
    """One loop that wakes at least every MAX_SLEEP_S.

    `on_space` is called when the journal accepts new work again, `look` in every turn; by `pull` the thread that writes a
    snapshot gets its pieces. `slept` gives the seconds that the machine slept since it was asked last.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        committer: Committer,
        journal: Journal,
        results: ResultStore,
        facts: Facts,
        on_space: Callable[[], None],
        pull: Pull = pulled,
        look: Callable[[float], None] = lambda now: None,
        slept: Callable[[], float] | None = None,
    ) -> None:
        self._look = look
        self._pull = pull
        self._slept = slept or Sleeps().seconds
        self._config = config
        self._engine = engine
        self._committer = committer
        self._journal = journal
        self._results = results
        self._facts = facts
        self._on_space = on_space
        self._started = asyncio.Event()
        self._accepting = journal.accepting
        self._look_again_at = 0.0
        self._watchdog_s = notify.watchdog_interval_s()
        self._watchdog_fed = 0.0
        self._collected_at = engine.clock.now()
        self._snapshot: asyncio.Task[None] | None = None
        self._snapshot_not_before = 0.0
        self._snapshot_note = ""
        self._finishing = False

    def start(self) -> None:
        """Recovery is over: timers may fire."""
        self._started.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._started.wait()
        while True:
            self._notice_sleep()
            now = self._engine.clock.now()
            due = self._engine.scheduler.next_due()
            if due is not None and due <= now:
                self._engine.feed(Ticked())
                due = self._engine.scheduler.next_due()
            self._feed_watchdog(now)
            self._look_at_space()
            self._take_notes(now)
            self._look(now)
            self._snapshot_if_due(now)
            self._collect(now)
            until_due = MAX_SLEEP_S if due is None else due - now
            await self._sleep(min(MAX_SLEEP_S, max(until_due, 0.001)))

    def _notice_sleep(self) -> None:
        """Before timeouts are looked at, which wait for as long as the machine slept."""
        seconds = self._slept()
        if seconds and self._engine.scheduler.table.running:
            log.info("machine_slept", seconds=round(seconds, 1))
            self._engine.feed(Slept(seconds=seconds))

    async def _sleep(self, seconds: float) -> None:
        """What came in while the daemon was stopped is heard first: an attempt that had ended in time is no timeout."""
        until = self._engine.clock.now() + seconds
        await asyncio.sleep(seconds)
        if self._engine.clock.now() - until > LATE_S:
            log.warning("was_stopped", seconds=round(self._engine.clock.now() - until, 1))
            await asyncio.sleep(MAX_SLEEP_S)

    async def finish(self, *, in_order: bool) -> None:
        """Return when no snapshot is being written, nor will be. At an end in order a last one is, if many records came.

        One that fails is logged and no more: the records that led to the state are all there.
        """
        self._finishing = True
        if self._snapshot is not None:
            await self._snapshot
        if in_order and not self._engine.scheduler.busy and self._engine.grown.records > STOP_SNAPSHOT_RECORDS:
            await self._try_snapshot()

    def _collect(self, now: float) -> None:
        """Collect old garbage, which only a full collection finds, unless the tasks in memory make that too slow."""
        if now - self._collected_at >= COLLECT_S and len(self._engine.scheduler.tasks) <= COLLECT_TASKS:
            self._collected_at = now
            gc.collect()

    def _feed_watchdog(self, now: float) -> None:
        if self._watchdog_s and now - self._watchdog_fed >= self._watchdog_s / 2:
            self._watchdog_fed = now
            notify.watchdog(in_words(self._engine.scheduler.counts))

    # The disk

    def _look_at_space(self) -> None:
        accepting = self._journal.accepting
        if accepting == self._accepting:
            return
        self._accepting = accepting
        self._look_again_at = 0.0
        if accepting:
            log.info("space_again", note="new tasks are taken and started again")
            self._on_space()

    def _take_notes(self, now: float) -> None:
        """What `status` warns of; each is logged when it comes up."""
        if now < self._look_again_at:
            return
        self._look_again_at = now + DISK_CHECK_S
        notes = [note for note in (self._disk_note(), self._snapshot_note) if note]
        if not self._journal.accepting:
            self._committer.reclaim()
            notes.append("new tasks are refused, and none is started: no space for the journal; running ones go on")
        for note in notes:
            if note not in self._facts.notes:
                log.warning("note", note=note)
        self._facts.notes[:] = notes

    def _disk_note(self) -> str:
        try:
            usage = self._journal.disk_usage()
        except OSError as error:
            return f"the disk of {self._facts.state_dir} cannot be looked at: {error.strerror}"
        # Some file systems do not tell their size.
        percent = 100 * (usage.total - usage.free) // usage.total if usage.total else 0
        if percent < self._config.journal.disk_warning_percent:
            return ""
        return f"the disk of {self._facts.state_dir} is {percent} % full"

    # Snapshots

    def _snapshot_if_due(self, now: float) -> None:
        if self._snapshot is not None or self._finishing or now < self._snapshot_not_before or self._engine.scheduler.busy:
            return
        grown = self._engine.grown
        worth = max(SNAPSHOT_BYTES, 2 * self._journal.snapshot_bytes)
        if grown.records >= self._config.journal.snapshot_every_records or grown.bytes >= worth:
            self._snapshot = asyncio.get_running_loop().create_task(self._try_snapshot())

    async def _try_snapshot(self) -> None:
        """Put the state on disk so that recovery need not replay what led to it; if that fails, say so and try again later."""
        try:
            await self._write_snapshot()
            self._snapshot_note = ""
        except Exception as error:
            log.error("snapshot_failed", error=str(error), exc_info=None if isinstance(error, SupervisorError) else error)
            self._snapshot_note = f"no snapshot could be written, the next start will take longer: {error}"
            self._snapshot_not_before = self._engine.clock.now() + SNAPSHOT_RETRY_S
        finally:
            self._snapshot = None
            self._look_again_at = 0.0

    async def _write_snapshot(self) -> None:
        sequence, grown = self._engine.sequence, self._engine.grown
        with closing(self._engine.scheduler.still(self._engine.clock.now())) as still:
            await self._engine.released(sequence)
            self._results.write_kept()
            await asyncio.to_thread(self._write, self._pull(still.pieces(PIECE_TASKS), asyncio.get_running_loop()), sequence)
        self._engine.covered(grown)
        log.info("snapshot_written", sequence=sequence, bytes=self._journal.snapshot_bytes)

    def _write(self, pieces: Iterator[bytes], sequence: int) -> None:
        # The journal's copies of small results go with its old segments: their files must be on disk first.
        self._results.sync_all()
        self._journal.write_snapshot(pieces, sequence)
