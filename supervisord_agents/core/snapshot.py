"""The whole state as bytes, and back: msgpack arrays of plain values; edges, counts, heaps and timers are rebuilt.

Fields are only ever added at the end of a record, with defaults, so that old snapshots stay readable.
"""

from __future__ import annotations

import msgspec

from supervisord_agents.core.model import Failure, State, TaskSpec, Usage
from supervisord_agents.core.submit import connect
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import NO_USAGE, Moment, Task, new_task
from supervisord_agents.errors import JournalCorrupt

VERSION = 1


class TaskRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task; the fields are those of core.task.Task, of which the rest follows from its graph."""

    spec: msgspec.Raw
    state: State
    attempt: int
    retries: int
    lost: int
    submitted_at: float
    started_at: float
    ended_at: float
    retry_at: float
    deadline_at: float
    worker: str
    failure: Failure | None
    usage: Usage
    ended_by_dependency: bool
    rest_s: float
    history: tuple[Moment, ...]
    client: str = ""


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state: graphs in order of submission, each with its tasks in theirs."""

    version: int
    graphs: list[tuple[str, list[TaskRecord]]]
    keys: dict[str, str]
    now: float = 0.0
    """The supervisor's clock when it was taken; 0.0 where that was not kept."""


class _Outline(msgspec.Struct, frozen=True, array_like=True):
    """A Snapshot of which only the time is looked at."""

    version: int
    graphs: msgspec.Raw
    keys: msgspec.Raw
    now: float = 0.0


_FIELDS = TaskRecord.__struct_fields__[1:]
_spec_decoder = msgspec.msgpack.Decoder(TaskSpec)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)
_outline_decoder = msgspec.msgpack.Decoder(_Outline)


def encode_table(table: TaskTable, now: float = 0.0) -> bytes:
    """The snapshot of the table. Equal states at the same time have equal snapshots."""
    graphs = [(graph, [_record(task) for task in tasks]) for graph, tasks in table.graphs.items()]
    return _encoder.encode(Snapshot(VERSION, graphs, table.keys, now))


def taken_at(data: bytes) -> float:
    """The time of a snapshot that `decode_table` takes, in seconds; 0.0 if it was not kept."""
    return _outline_decoder.decode(data).now


def decode_table(data: bytes) -> TaskTable:
    """The table of a snapshot; raises JournalCorrupt for bytes that are none, or of a later version."""
    try:
        snapshot = _decoder.decode(data)
        specs = [[_spec_decoder.decode(record.spec) for record in records] for _, records in snapshot.graphs]
    except msgspec.DecodeError as error:
        raise JournalCorrupt(
            f"the snapshot cannot be read: {error}", kept="It is left as it is.", hint="An older snapshot and the journal may do."
        ) from error
    if snapshot.version > VERSION:
        raise JournalCorrupt(
            f"the snapshot has version {snapshot.version}, this program reads up to {VERSION}",
            kept="It is left as it is.",
            hint="Use the version of agent-supervisor that wrote it, or a later one.",
        )
    table = TaskTable()
    table.keys = snapshot.keys
    shared: dict[tuple[Moment, ...], tuple[Moment, ...]] = {}
    for (graph, records), unpacked in zip(snapshot.graphs, specs, strict=True):
        shared.clear()
        start = len(table.tasks)
        added = [
            _task(graph, spec, record, start + position, shared)
            for position, (spec, record) in enumerate(zip(unpacked, records, strict=True))
        ]
        connect(table, unpacked, added)
        for task in added:
            table.add(task)
            if not task.ended:
                table.timers.set_deadline(task)
    return table


def _record(task: Task) -> TaskRecord:
    return TaskRecord(msgspec.Raw(task.packed), *[getattr(task, name) for name in _FIELDS])


def _task(
    graph: str, spec: TaskSpec, record: TaskRecord, order: int, shared: dict[tuple[Moment, ...], tuple[Moment, ...]]
) -> Task:
    task = new_task(graph, spec, order, record.submitted_at, record.client)
    for name in _FIELDS:
        setattr(task, name, getattr(record, name))
    # Tasks of a graph begin with the same history: one object for all of them again, as before the snapshot.
    task.history = shared.setdefault(record.history, record.history)
    if record.usage == NO_USAGE:
        task.usage = NO_USAGE
    return task
