"""Takes what has ended out of memory into the archive, by count and age, and out of the archive, by age and bytes.

The order that a crash cannot break: results on disk, then the rows, then the `Archived` record, then memory. What a crash leaves
in the archive and in memory is the same graph; memory wins, and it is archived again. Out of the archive go result files and logs
first and the rows last, so that a crash leaves rows by which the rest is found.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import structlog

from supervisord_agents.config import Config
from supervisord_agents.core.events import Archived
from supervisord_agents.core.graphs import Graph
from supervisord_agents.core.model import Past, State
from supervisord_agents.core.snapshot import TaskRecord, record_of, task_of
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.errors import SupervisorError
from supervisord_agents.spool.archive import Archive, GraphRow, Row
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.results import ResultStore

LOOK_S = 1.0
RETRY_S = 60.0
BATCH_TASKS = 500
"""Archived by one record, unless a single graph is larger."""
AT_ONCE = 100
"""Tasks encoded in one turn of the loop."""
REMOVE_GRAPHS = 100
T = TypeVar("T")
log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What the archive keeps of a task."""

    record: TaskRecord
    dependencies: dict[str, State]
    dependents: list[str]
    undoes: str = ""
    children: list[str] = []


class ArchivedTask(msgspec.Struct, frozen=True):
    """A task out of the archive; it has no edges, only their names."""

    task: Task
    dependencies: dict[str, State]
    dependents: list[str]
    undoes: str = ""
    """The full id of the task that it undoes."""
    children: list[str] = []
    """The full ids of what it has submitted."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


class Changes(Protocol):
    """What is kept of workspaces, by task."""

    def size(self, task: str) -> int: ...

    def remove(self, task: str) -> None: ...


class Archivist:
    """Owns the archive. Everything that touches the disk is done by one thread of its own, in order."""

    def __init__(
        self, config: Config, engine: Engine, results: ResultStore, logs: LogStore, path: Path, changes: Changes
    ) -> None:
        self._tasks = config.tasks
        self._engine = engine
        self._results = results
        self._logs = logs
        self._changes = changes
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._archive: Archive
        self._started = asyncio.Event()
        self.counts: Counter[State] = Counter()
        """Tasks in the archive, by state."""
        self._bytes = 0
        self.moves = 0
        """How often something has left memory: what was asked before that must be asked again."""
        self.note = ""
        """What `status` warns of."""

    async def open(self) -> None:
        """Open the archive, and take out of it what is in memory. Raises SupervisorError."""
        self._archive = await self._do(lambda: Archive(self._path))
        graphs = self._engine.scheduler.table.graphs
        twice = [graph for graph in await self._do(self._archive.newest) if graph in graphs]
        if twice:
            await self._do(lambda: self._archive.remove(twice))
        self.counts = await self._do(self._archive.counts)
        self._bytes = await self._do(self._archive.bytes)

    async def aclose(self) -> None:
        """Harmless when it was never opened."""
        if hasattr(self, "_archive"):
            await self._do(self._archive.close)
        self._thread.shutdown()

    def start(self) -> None:
        """Recovery is over: tasks may leave."""
        self._started.set()

    async def run(self) -> None:
        """Until cancelled; what fails is told in `note` and tried again later."""
        await self._started.wait()
        while True:
            try:
                await self._archive_all()
                await self._remove_all()
                self.note = ""
                await asyncio.sleep(LOOK_S)
            except (SupervisorError, OSError) as error:
                log.error("archive_failed", error=str(error))
                self.note = f"ended tasks stay where they are, the archive cannot be used: {error}"
                await asyncio.sleep(RETRY_S)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # Into the archive

    async def _archive_all(self) -> None:
        scheduler = self._engine.scheduler
        while True:
            older_than = self._engine.clock.now() - self._tasks.keep_ended_s
            graphs = scheduler.to_archive(self._tasks.keep_ended, older_than, BATCH_TASKS, self._tasks.keep_dead)
            if not graphs:
                return
            await self._archive_some(graphs)

    async def _archive_some(self, graphs: list[Graph]) -> None:
        table = self._engine.scheduler.table
        touched: set[str] = set()
        table.watch(table.picture, touched)
        try:
            rows, counts = await self._rows(graphs)
            await self._engine.settled()
            self._results.write_kept()
            heads = await self._do(lambda: self._put(graphs, rows))
        finally:
            table.watch(table.picture, None)
        busy = self._engine.scheduler.busy
        still = [graph for graph in graphs if graph.id not in touched and not busy]
        if still:
            await self._forget(still, heads, counts)
        back = [graph.id for graph in graphs if graph.id in touched or busy]
        if back:  # in memory, whose files must not go with an old row
            await self._do(lambda: self._archive.remove(back))
            await asyncio.sleep(LOOK_S)

    async def _forget(self, graphs: list[Graph], heads: dict[str, int], counts: dict[str, Counter[State]]) -> None:
        """Out of memory; in this very turn nothing has touched them since they were put into the archive."""
        fed = self._engine.feed(Archived(graphs=tuple(graph.id for graph in graphs)))
        self.moves += 1
        for graph in graphs:
            self._bytes += heads[graph.id]
            self.counts += counts[graph.id]
        await self._engine.released(fed.sequence)

    async def _rows(self, graphs: list[Graph]) -> tuple[list[Row], dict[str, Counter[State]]]:
        scheduler = self._engine.scheduler
        rows: list[Row] = []
        counts: dict[str, Counter[State]] = {}
        for graph in graphs:
            counts[graph.id] = Counter(task.state for task in graph.tasks)
            for task in graph.tasks:
                rows.append(_row(task, scheduler.sagas.undoes(task), scheduler.children_of(task)))
                if len(rows) % AT_ONCE == 0:
                    await asyncio.sleep(0)
        return rows, counts

    def _put(self, graphs: list[Graph], rows: list[Row]) -> dict[str, int]:
        """In the thread; gives the bytes of each graph."""
        # The journal's copies of small results are of use only to tasks that are in memory.
        self._results.sync_all()
        sizes = dict.fromkeys((graph.id for graph in graphs), 0)
        for row in rows:
            sizes[row.graph] += len(row.record) + self._results.size(row.id) + self._logs.size(row.id)
            sizes[row.graph] += self._changes.size(row.id)
        self._archive.put([GraphRow(graph.id, graph.key, graph.ended_at, sizes[graph.id]) for graph in graphs], rows)
        return sizes

    # Out of the archive

    async def _remove_all(self) -> None:
        while self._tasks.archive_s or self._tasks.archive_bytes:
            graphs = self._too_many(await self._do(lambda: self._archive.oldest(REMOVE_GRAPHS)))
            if not graphs:
                return
            await self._remove_some(graphs)

    async def _remove_some(self, graphs: list[GraphRow]) -> None:
        removed = await self._do(lambda: self._remove([graph.id for graph in graphs]))
        self._bytes -= sum(graph.bytes for graph in graphs)
        self.counts -= removed
        log.info("archive_shortened", graphs=len(graphs), tasks=removed.total())

    def _too_many(self, oldest: Sequence[GraphRow]) -> list[GraphRow]:
        before = self._engine.clock.now() - self._tasks.archive_s if self._tasks.archive_s else 0.0
        over = self._bytes - self._tasks.archive_bytes if self._tasks.archive_bytes else 0
        chosen = []
        for graph in oldest:
            if graph.ended_at >= before and over <= 0:
                break
            chosen.append(graph)
            over -= graph.bytes
        return chosen

    def _remove(self, graphs: list[str]) -> Counter[State]:
        """In the thread; gives the number of tasks by state."""
        names = [name for graph in graphs for name in self._archive.names(graph)]
        for name in names:
            self._results.remove(name)
            self._logs.remove(name)
            self._changes.remove(name)
        self._results.sync_names()
        self._logs.sync_names()
        return self._archive.remove(graphs)

    # What is asked of it

    @property
    def empty(self) -> bool:
        return not any(self.counts.values())

    async def resolve(self, name: str) -> list[str]:
        """The full ids that a person may mean, as Scheduler.resolve has them."""
        return [] if self.empty or not name else await self._do(lambda: self._archive.resolve(name))

    async def names(self, graph: str) -> list[str]:
        """Full ids of a graph's tasks, in its order; empty for an unknown one."""
        return [] if self.empty else await self._do(lambda: self._archive.names(graph))

    async def graphs(self, ids: Sequence[str]) -> list[str]:
        """Those of them that there are."""
        return [] if self.empty else await self._do(lambda: self._archive.graphs(ids))

    async def graph_of_key(self, key: str) -> str | None:
        """The archived graph that was submitted with this idempotency key."""
        return None if self.empty or not key else await self._do(lambda: self._archive.graph_of_key(key))

    async def task(self, id: str) -> ArchivedTask | None:
        row = None if self.empty else await self._do(lambda: self._archive.task(id))
        return _read(row) if row is not None else None

    async def task_of(self, id: str) -> Task | None:
        found = await self.task(id)
        return found.task if found is not None else None

    async def tasks(self, ids: Sequence[str]) -> list[Task]:
        """Those of them that there are."""
        return [] if self.empty or not ids else _tasks(await self._do(lambda: self._archive.tasks(ids)))

    async def past(self, ids: Collection[str]) -> tuple[Past, ...]:
        """How those of them ended that there are, for who depends on them."""
        return tuple(
            Past(task.id, task.state, task.failure.code if task.failure else "") for task in await self.tasks(sorted(ids))
        )

    async def page(self, before: int, count: int, graph: str, states: Sequence[State]) -> list[Task]:
        """At most `count` tasks of an order below `before`, newest first."""
        if self.empty or (states and not graph and not any(self.counts[state] for state in states)):
            return []
        return _tasks(await self._do(lambda: self._archive.page(before, count, graph, states)))

    async def count(self, graph: str, states: Sequence[State]) -> int:
        """How many tasks match."""
        if graph:
            return 0 if self.empty else await self._do(lambda: self._archive.count(graph, states))
        return sum(count for state, count in self.counts.items() if not states or state in states)


def _row(task: Task, undoes: str, children: list[str]) -> Row:
    dependencies = {edge.before.id: edge.before.state for edge in task.dependencies}
    record = _encoder.encode(Kept(record_of(task), dependencies, task.dependent_ids, undoes, children))
    return Row(task.order, task.id, task.graph, str(task.state), record)


def _read(row: Row) -> ArchivedTask:
    kept = _decoder.decode(row.record)
    return ArchivedTask(task_of(row.graph, kept.record), kept.dependencies, kept.dependents, kept.undoes, kept.children)


def _tasks(rows: Sequence[Row]) -> list[Task]:
    return [_read(row).task for row in rows]
