"""From the journal back to a running state.

Order matters: the workers of the daemon before are found, or are known to be gone; then what the gone ones had finished is
adopted, and only then are those attempts queued again that are still marked running and that no worker goes on with. The other
way round an attempt could run twice.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Container
from pathlib import Path

import msgspec
import structlog

from supervisord_agents.core.events import AnyEvent, Changed, Decision, Finished, decode_event
from supervisord_agents.core.model import END_STATES
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.snapshot import taken_at
from supervisord_agents.errors import JournalCorrupt, SupervisorError
from supervisord_agents.journal.recovery import Recovered
from supervisord_agents.observe import notify
from supervisord_agents.wire import frames
from supervisord_agents.workers.emptying import empty
from supervisord_agents.workers.nest import end_left

CLEAR_S = 10.0
"""For the directory of one worker: those of older versions had one inside that a task could fill."""
TOLD_RECORDS = 50_000
PATIENCE_S = 300.0
"""The service manager hears of a start that takes long after so many records, and waits so long for the next word."""
log = structlog.get_logger()


class Replayed(msgspec.Struct, kw_only=True):
    """The state that the journal holds, and what of its tail the shell must look at again."""

    scheduler: Scheduler
    finished: dict[str, Finished]
    """The last end of an attempt of each task that the tail tells of."""
    ended: set[str]
    """Tasks that ended in the tail."""
    last_at: float
    """The last time that the journal tells of."""
    records: int
    bytes: int
    """Of the records' payloads."""
    clean: bool
    torn_bytes: int


def replay(recovered: Recovered, changed: Callable[[int, Changed], None], ageing_s: float = 0.0) -> Replayed:
    """Rebuild the scheduler: snapshot, then every record after it through the same `handle` that made it.

    `changed` is told of every change of state, with the sequence of its record. Raises JournalCorrupt for a record that is no
    event, or that cannot be applied. The service manager is asked to be patient.
    """
    collecting = gc.isenabled()
    gc.disable()  # Nothing of what is made here is garbage.
    try:
        replayed = _restored(recovered, ageing_s)
        _replay_records(recovered, replayed, changed)
    finally:
        if collecting:
            gc.enable()
    return replayed


def _restored(recovered: Recovered, ageing_s: float) -> Replayed:
    """The state of the snapshot."""
    scheduler, last_at = Scheduler(ageing_s), 0.0
    if recovered.snapshot is not None:
        notify.starting("reading the snapshot", PATIENCE_S)
        scheduler, last_at = Scheduler.restore(recovered.snapshot, ageing_s), taken_at(recovered.snapshot)
    return Replayed(
        scheduler=scheduler,
        finished={},
        ended=set(),
        last_at=last_at,
        records=0,
        bytes=0,
        clean=recovered.clean,
        torn_bytes=recovered.torn_bytes,
    )


def _replay_records(recovered: Recovered, replayed: Replayed, changed: Callable[[int, Changed], None]) -> None:
    scheduler, ended, finished = replayed.scheduler, replayed.ended, replayed.finished
    last_at, size, records = replayed.last_at, 0, 0
    for sequence, payload in recovered.records:
        now, event = _decoded(sequence, payload)
        if recovered.holes and not _still_makes_sense(scheduler, event, now, sequence):
            continue
        for decision in _applied(scheduler, event, now, sequence):
            if type(decision) is Changed:
                changed(sequence, decision)
                if decision.after in END_STATES:
                    ended.add(decision.task)
        if type(event) is Finished:
            finished[event.task] = event
        if now > last_at:
            last_at = now
        records += 1
        size += len(payload)
        if records % TOLD_RECORDS == 0:
            notify.starting(f"{records} of {len(recovered.records)} records replayed", PATIENCE_S)
    replayed.last_at, replayed.records, replayed.bytes = last_at, records, size


def _decoded(sequence: int, payload: bytes) -> tuple[float, AnyEvent]:
    try:
        return decode_event(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JournalCorrupt(
            f"record {sequence} is whole but is no event of this version: {error}.",
            hint="It was written by a newer version? Look at it with: agentctl journal dump",
        ) from error


def _applied(scheduler: Scheduler, event: AnyEvent, now: float, sequence: int) -> list[Decision]:
    try:
        return scheduler.handle(event, now)
    except Exception as error:
        raise JournalCorrupt(
            f"record {sequence}, {type(event).__name__}, cannot be applied: {error!r}.",
            kept="Nothing was changed.",
            hint="This is a bug: please report it with the record, from agentctl journal dump.",
        ) from error


def _still_makes_sense(scheduler: Scheduler, event: AnyEvent, now: float, sequence: int) -> bool:
    """Behind a hole, a record may speak of tasks that the hole took with it."""
    try:
        scheduler.check(event, now)
    except SupervisorError as error:
        log.error("record_left_out", sequence=sequence, record=type(event).__name__, reason=str(error))
        return False
    return True


Adopt = Callable[[str, frames.End], object]


def adopt_outboxes(scheduler: Scheduler, workers: Path, adopt: Adopt, going_on: Container[str]) -> int:
    """Hand over the ends that workers left behind for attempts still marked running; gives their number.

    A worker may only speak for the attempt it was given: anything else is ignored. Those of tasks that go on tell it themselves.
    """
    adopted = 0
    for task in scheduler.running_tasks():
        if task.id in going_on:
            continue
        end = end_left(workers / task.worker, task.id, task.attempt) if task.worker else None
        if end is not None:
            adopt(task.worker, end)
            adopted += 1
    return adopted


def clear(workers: Path, alive: Container[str]) -> None:
    """Remove the directories of workers that are gone; what cannot be removed is logged, and no reason not to start."""
    for directory in workers.glob("w-*"):
        if directory.name in alive:
            continue
        try:
            empty(str(directory), within_s=CLEAR_S)
            directory.rmdir()
        except OSError as error:
            log.warning("worker_files_left", directory=str(directory), reason=str(error))


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start
