"""The whole state as bytes, and back: msgpack arrays of plain values; edges, counts, heaps and timers are rebuilt.

A `Still` encodes the state of one moment piece by piece while events go on: a task that is about to change before its turn has
come is encoded first, as it was (copy on write).

Fields are only ever added at the end of a record, with defaults, so that old snapshots stay readable.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import msgspec

from supervisord_agents.core.archive import stub
from supervisord_agents.core.breakers import Health
from supervisord_agents.core.budgets import Account
from supervisord_agents.core.checkpoints import Kept
from supervisord_agents.core.durations import Kind
from supervisord_agents.core.families import Birth, Family
from supervisord_agents.core.model import Budget, Failure, Past, State, TaskSpec, Usage
from supervisord_agents.core.pauses import Pause, Scope
from supervisord_agents.core.saga import Saga
from supervisord_agents.core.submit import connect
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import NO_USAGE, UNKNOWN_ESTIMATE_S, Moment, Task, choices_of, full_id
from supervisord_agents.errors import JournalCorrupt

VERSION = 1
ALL = 1 << 62
PIECE_BYTES = 200
"""What a task takes, about."""


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
    order: int = -1
    """-1 where it was not kept: the position among all tasks."""
    urgency: int = -1
    """-1 where it was not kept: the priority."""
    agent: str = ""
    """Of the newest attempt; empty where it was not kept: the first that the specification names."""


class HeldBudget(msgspec.Struct, frozen=True, array_like=True):
    """The account of a graph, as core.budgets.Account has it."""

    graph: str
    budget: Budget
    until: float
    attempts: int
    usage: Usage
    closed: str
    sharers: list[str]


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state: graphs in order of submission, each with its tasks (TaskRecord) in theirs, unpacked one graph at a time."""

    version: int
    graphs: list[tuple[str, msgspec.Raw]]
    keys: dict[str, str]
    now: float = 0.0
    """The supervisor's clock when it was taken; 0.0 where that was not kept."""
    next_order: int = -1
    step: int = 0
    past: list[Past] = []
    """Archived tasks that others refer to."""
    pauses: list[tuple[Scope, Pause]] = []
    sagas: list[tuple[str, list[str], str]] = []
    """Graph, short ids of what can be undone in the order of their ends, and the graph that undoes them, if it has begun."""
    origins: dict[str, str] = {}
    """By the graph that undoes another: that other."""
    health: dict[str, Health] = {}
    placed: dict[str, str] = {}
    checkpoints: list[Kept] = []
    letters: list[str] | None = None
    """Dead letters, in the order of their ends; None where it was not kept: all that are dead."""
    durations: list[Kind] = []
    cold: list[str] = []
    """Running tasks that had to wait for their worker (core.durations)."""
    births: dict[str, Birth] = {}
    families: dict[str, Family] = {}
    asleep: dict[str, float] = {}
    """Seconds that the machine slept while an attempt ran, by its task."""
    budgets: list[HeldBudget] = []


class _Outline(msgspec.Struct, frozen=True, array_like=True):
    """A Snapshot of which only the time is looked at."""

    version: int
    graphs: msgspec.Raw
    keys: msgspec.Raw
    now: float = 0.0


_fields = operator.attrgetter(*TaskRecord.__struct_fields__[1:])
_spec_decoder = msgspec.msgpack.Decoder(TaskSpec)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)
_records_decoder = msgspec.msgpack.Decoder(list[TaskRecord])
_outline_decoder = msgspec.msgpack.Decoder(_Outline)


class Still:
    """The snapshot of a table as it is now, at `now`, to be had by `pieces`. One at a time of a table."""

    def __init__(self, table: TaskTable, now: float) -> None:
        if table.picture is not None:
            raise ValueError("a snapshot of this table is being taken already")
        if table.backlog:
            raise ValueError("no snapshot holds a backlog: it has to be carried out first")
        self._table = table
        self._now = now
        self._graphs = list(table.graphs.values())
        self._end = table.next_order
        self._keys = len(table.keys)
        self._step = table.step
        self._pauses = _encoder.encode(list(table.pauses.items()))
        self._sagas = _encoder.encode([_saga(graph, saga) for graph, saga in table.sagas.items()])
        self._origins = _encoder.encode(table.sagas.origins)
        self._budgets = _encoder.encode([_held(graph, account) for graph, account in table.budgets.items()])
        self._letters = _encoder.encode(list(table.letters))
        self._placement = _encoder.encode(table.health) + _encoder.encode(table.placed)
        self._durations = _encoder.encode(list(table.durations.kinds.values())) + _encoder.encode(sorted(table.durations.cold))
        self._families = _encoder.encode(table.families.births) + _encoder.encode(table.families.of)
        self._past = _encoder.encode([_past(stub) for stub in table.stubs.values()])
        self._asleep = _encoder.encode(table.timers.asleep)
        self._checkpoints = table.checkpoints.picture()
        self._done = 0
        """Tasks of a smaller order are encoded."""
        self._kept: dict[int, bytes] = {}
        table.watch(self, table.touched)

    def close(self) -> None:
        """Keep no more; the pieces are not to be had any longer."""
        self._table.watch(None, self._table.touched)

    def keep(self, task: Task) -> None:
        """Encode a task that is about to change, unless that is done."""
        if self._done <= task.order < self._end and task.order not in self._kept:
            self._kept[task.order] = _encoder.encode(record_of(task))

    def pieces(self, count: int) -> Iterator[bytes]:
        """The bytes, by about `count` tasks at a time; events may be handled in between. Closes this at the end."""
        with closing(self):
            piece = bytearray(_array(len(Snapshot.__struct_fields__)) + _encoder.encode(VERSION) + _array(len(self._graphs)))
            for graph in self._graphs:
                piece += _array(2) + _encoder.encode(graph.id) + _array(len(graph.tasks))
                for start in range(0, len(graph.tasks), count):
                    for task in graph.tasks[start : start + count]:
                        piece += self._kept.pop(task.order, b"") or _encoder.encode(record_of(task))
                    self._done = task.order + 1
                    if len(piece) > count * PIECE_BYTES:
                        yield bytes(piece)
                        piece.clear()
            piece += _map(self._keys)
            keyed = (graph for graph in self._graphs if graph.key)
            while some := list(islice(keyed, count)):
                for graph in some:
                    piece += _encoder.encode(graph.key) + _encoder.encode(graph.id)
                yield bytes(piece)
                piece.clear()
            yield bytes(
                piece
                + _encoder.encode(self._now)
                + _encoder.encode(self._end)
                + _encoder.encode(self._step)
                + self._past
                + self._pauses
                + self._sagas
                + self._origins
                + self._placement
                + _array(len(self._checkpoints))
            )
            for start in range(0, len(self._checkpoints), count):
                yield b"".join(map(_encoder.encode, self._checkpoints[start : start + count]))
            yield self._letters + self._durations
            yield self._families + self._asleep + self._budgets


def encode_table(table: TaskTable, now: float = 0.0) -> bytes:
    """The snapshot of the table. Equal states at the same time have equal snapshots."""
    return b"".join(Still(table, now).pieces(ALL))


def taken_at(data: bytes) -> float:
    """The time of a snapshot that `decode_table` takes, in seconds; 0.0 if it was not kept."""
    return _outline_decoder.decode(data).now


def decode_table(data: bytes, ageing_s: float = 0.0) -> TaskTable:
    """The table of a snapshot, whose ready tasks age so; raises JournalCorrupt for bytes that are none, or of a later version."""
    try:
        snapshot = _decoder.decode(data)
        if snapshot.version > VERSION:
            raise JournalCorrupt(
                f"the snapshot has version {snapshot.version}, this program reads up to {VERSION}",
                kept="It is left as it is.",
                hint="Use the version of agent-supervisor that wrote it, or a later one.",
            )
        return _table(snapshot, ageing_s)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JournalCorrupt(
            f"the snapshot cannot be read: {error}", kept="It is left as it is.", hint="An older snapshot and the journal may do."
        ) from error


def _table(snapshot: Snapshot, ageing_s: float) -> TaskTable:
    table = TaskTable(ageing_s)
    table.stubs = {past.task: stub(past) for past in snapshot.past}
    table.health.update(snapshot.health)
    table.placed.update(snapshot.placed)
    table.timers.asleep = dict(snapshot.asleep)
    keys = {graph: key for key, graph in snapshot.keys.items()}
    for graph, records in snapshot.graphs:
        _add(table, graph, _records_decoder.decode(records), keys.get(graph, ""))
    table.next_order = max(table.next_order, snapshot.next_order)
    ended = [(at, graph.id) for graph in table.graphs.values() if (at := graph.ended_at)]
    table.lately = {graph: at for at, graph in sorted(ended)}
    table.step = snapshot.step
    table.pauses.update(snapshot.pauses)
    for graph, done, undone_by in snapshot.sagas:
        tasks = [table.tasks[full_id(graph, short)] for short in done]
        table.sagas[graph] = Saga(sum(not task.ended for task in table.graphs.tasks(graph)), tasks, undone_by)
    table.sagas.origins |= snapshot.origins
    table.checkpoints.restore(snapshot.checkpoints, (task for task, _ in snapshot.checkpoints if table.tasks[task].ended))
    for held in snapshot.budgets:
        _hold(table, held)
    table.letters = dict.fromkeys(_dead(table) if snapshot.letters is None else snapshot.letters)
    table.durations.restore(snapshot.durations, snapshot.cold)
    table.families.births, table.families.of = snapshot.births, snapshot.families
    for name, family in table.families.of.items():
        if family.waits:  # for its children: of its dependencies it waits for none any more
            table.tasks[name].unmet = 0
    return table


def _add(table: TaskTable, graph: str, records: list[TaskRecord], key: str) -> None:
    shared: dict[tuple[Moment, ...], tuple[Moment, ...]] = {}
    specs = [_spec_decoder.decode(record.spec) for record in records]
    first = table.next_order
    added = [
        _task(graph, spec, record, first + position, shared)
        for position, (spec, record) in enumerate(zip(specs, records, strict=True))
    ]
    connect(table, specs, added)
    table.add_graph(graph, added, key)
    for task in added:
        table.add(task)
        if task.deadline_at and not task.ended:
            table.timers.set_deadline(task)


def _held(graph: str, account: Account) -> HeldBudget:
    return HeldBudget(graph, account.budget, account.until, account.attempts, account.usage, account.closed, account.sharers)


def _hold(table: TaskTable, held: HeldBudget) -> None:
    tasks = (task for graph in (held.graph, *held.sharers) for task in table.graphs.tasks(graph))
    count = sum(not task.ended for task in tasks)
    table.budgets.hold(held.graph, Account(held.budget, held.until, held.attempts, held.usage, held.closed, count, held.sharers))


def _dead(table: TaskTable) -> list[str]:
    dead = [task for task in table.tasks.values() if task.state is State.DEAD]
    return [task.id for task in sorted(dead, key=lambda task: task.ended_at)]


def _saga(graph: str, saga: Saga) -> tuple[str, list[str], str]:
    return graph, [task.short_id for task in saga.done], saga.undone_by


def _past(stub: Task) -> Past:
    return Past(stub.id, stub.state, stub.failure.code if stub.failure else "")


def _array(length: int) -> bytes:
    """The head of a msgpack array."""
    return b"\xdd" + length.to_bytes(4, "big")


def _map(length: int) -> bytes:
    """The head of a msgpack map."""
    return b"\xdf" + length.to_bytes(4, "big")


def record_of(task: Task) -> TaskRecord:
    """All that is kept of a task."""
    return TaskRecord(msgspec.Raw(task.packed), *_fields(task))


def task_of(graph: str, record: TaskRecord) -> Task:
    """The task that a record with its order was made of, without its edges."""
    return _task(graph, _spec_decoder.decode(record.spec), record, record.order, {})


def _task(
    graph: str, spec: TaskSpec, record: TaskRecord, order: int, shared: dict[tuple[Moment, ...], tuple[Moment, ...]]
) -> Task:
    estimate_s = spec.estimate_s or UNKNOWN_ESTIMATE_S
    return Task(
        id=full_id(graph, spec.id),
        graph=graph,
        packed=bytes(record.spec),
        pool=sys.intern(spec.pool),
        agent=sys.intern(record.agent or spec.agent),
        choices=choices_of(spec),
        priority=spec.priority,
        timeout_s=spec.timeout_s,
        estimate_s=estimate_s,
        client=sys.intern(record.client),
        order=record.order if record.order >= 0 else order,
        state=record.state,
        attempt=record.attempt,
        retries=record.retries,
        lost=record.lost,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        retry_at=record.retry_at,
        deadline_at=record.deadline_at,
        worker=record.worker,
        failure=record.failure,
        usage=record.usage if record.usage != NO_USAGE else NO_USAGE,
        ended_by_dependency=record.ended_by_dependency,
        rest_s=record.rest_s,
        urgency=record.urgency if record.urgency >= 0 else spec.priority,
        # Tasks of a graph begin with the same history: one object for all of them again, as before the snapshot.
        history=shared.setdefault(record.history, record.history),
    )
