"""What the daemon does by the clock: due timers, snapshots, the disk, the watchdog."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping

import structlog

from supervisord_agents.config import Config
from supervisord_agents.core.events import Ticked
from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.handlers import Facts
from supervisord_agents.journal.committer import Committer
from supervisord_agents.journal.journal import Journal
from supervisord_agents.observe import notify
from supervisord_agents.spool.results import ResultStore

MAX_SLEEP_S = 0.25
"""Bounds how late a timer set meanwhile can fire."""
DISK_CHECK_S = 5.0
log = structlog.get_logger()


def in_words(counts: Mapping[State, int]) -> str:
    """The tasks that have not ended, for the one line of `systemctl status`."""
    open_states = [state for state in State if state not in END_STATES and counts.get(state)]
    return ", ".join(f"{counts[state]} {state}" for state in open_states) or "no task is open"


class Upkeep:
    """One loop that wakes at least every MAX_SLEEP_S."""

    def __init__(
        self, config: Config, engine: Engine, committer: Committer, journal: Journal, results: ResultStore, facts: Facts
    ) -> None:
        self._config = config
        self._engine = engine
        self._committer = committer
        self._journal = journal
        self._results = results
        self._facts = facts
        self._started = asyncio.Event()
        self._disk_checked = 0.0
        self._watchdog_s = notify.watchdog_interval_s()
        self._watchdog_fed = 0.0
        self._snapshot_running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Recovery is over: timers may fire."""
        self._started.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._started.wait()
        while True:
            now = self._engine.clock.now()
            due = self._engine.scheduler.next_due()
            if due is not None and due <= now:
                self._engine.feed(Ticked())
                due = self._engine.scheduler.next_due()
            self._feed_watchdog(now)
            self._check_disk(now)
            self._snapshot_if_due()
            until_due = MAX_SLEEP_S if due is None else due - now
            await asyncio.sleep(min(MAX_SLEEP_S, max(until_due, 0.001)))

    def _feed_watchdog(self, now: float) -> None:
        if self._watchdog_s and now - self._watchdog_fed >= self._watchdog_s / 2:
            self._watchdog_fed = now
            notify.watchdog(in_words(self._engine.scheduler.counts))

    def _check_disk(self, now: float) -> None:
        if now - self._disk_checked < DISK_CHECK_S:
            return
        self._disk_checked = now
        usage = shutil.disk_usage(self._facts.state_dir)
        percent = 100 * (usage.total - usage.free) // usage.total
        notes = []
        if percent >= self._config.journal.disk_warning_percent:
            notes.append(f"the disk of {self._facts.state_dir} is {percent} % full")
        if not self._journal.accepting:
            self._journal.try_reclaim()
        if not self._journal.accepting:
            notes.append("new tasks are refused: no space for the journal; running ones go on")
        if notes != self._facts.notes:
            for note in notes:
                log.warning("disk", note=note)
        self._facts.notes[:] = notes

    def _snapshot_if_due(self) -> None:
        busy = self._snapshot_running is not None and not self._snapshot_running.done()
        if not busy and self._engine.records_since_snapshot >= self._config.journal.snapshot_every_records:
            self._snapshot_running = asyncio.get_running_loop().create_task(self.snapshot())

    async def snapshot(self) -> None:
        """Put the state on disk so that recovery need not replay what led to it."""
        if self._snapshot_running is not None and self._snapshot_running is not asyncio.current_task():
            await self._snapshot_running
        sequence = self._engine.sequence
        state = self._engine.scheduler.snapshot()
        self._engine.records_since_snapshot = 0
        await self._engine.released(sequence)
        await asyncio.to_thread(self._write, state, sequence)
        log.info("snapshot_written", sequence=sequence, bytes=len(state))

    def _write(self, state: bytes, sequence: int) -> None:
        # The journal's copies of small results go with its old segments: their files must be on disk first.
        self._results.sync_all()
        self._journal.write_snapshot(state, sequence)
