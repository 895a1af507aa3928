"""The archive: tasks that have ended and left memory, in one SQLite database beside the journal.

The journal forgets a task only after its row is durable here, so that what is in both is the same task, and memory wins. Rows of
a graph come and go together. The database is in WAL mode with synchronous=FULL (www.sqlite.org/pragma.html): a commit is durable
when it returns. All methods block, and belong to one thread at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.core.model import State
from supervisord_agents.errors import DiskFull, SupervisorError

VERSION = 1
MAX_MEANT = 1_000
"""Names given for the beginning of one."""
LAST_CHARACTER = "\U0010ffff"
_SCHEMA = """
create table graphs (
    id text primary key,
    key text not null,
    ended_at real not null,
    bytes integer not null
) without rowid;
create index graphs_by_key on graphs (key) where key != '';
create index graphs_by_end on graphs (ended_at);
create table newest (
    graph text primary key
) without rowid;
create table tasks (
    place integer primary key,
    id text not null unique,
    graph text not null,
    state text not null,
    record blob not null
);
create index tasks_by_graph on tasks (graph, place);
create index tasks_by_state on tasks (state, place);
"""


class Row(NamedTuple):
    """One task. `place` is its order of submission over all tasks, `record` is for the daemon to read."""

    place: int
    id: str
    graph: str
    state: str
    record: bytes


class GraphRow(NamedTuple):
    """One graph; `bytes` is what its tasks take on the disk, here and in result files and logs."""

    id: str
    key: str
    ended_at: float
    bytes: int


class Archive:
    """The database in a file, made if it is absent. Raises SupervisorError if it cannot be used, DiskFull for lack of room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._refusals():
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # Nobody else uses it; and an index in shared memory would need a file of its own, for which a full disk has no room.
            self._database.execute("pragma locking_mode = exclusive")
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = full")
            version = self._database.execute("pragma user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(f"begin; {_SCHEMA} pragma user_version = {VERSION}; commit;")
            elif version > VERSION:
                raise SupervisorError(
                    f"the archive has version {version}, this program reads up to {VERSION}.",
                    field=str(path),
                    kept="It is left as it is.",
                    hint="Use the version of agent-supervisor that wrote it, or a later one.",
                )

    def close(self) -> None:
        self._database.close()

    def put(self, graphs: Iterable[GraphRow], rows: Iterable[Row]) -> None:
        """Add graphs with all their tasks, or replace them: durable when this returns."""
        graphs = list(graphs)
        with self._transaction():
            self._database.execute("delete from newest")
            self._database.executemany("insert into newest values (?)", [(graph.id,) for graph in graphs])
            self._database.executemany("insert or replace into graphs values (?, ?, ?, ?)", graphs)
            self._database.executemany("insert or replace into tasks values (?, ?, ?, ?, ?)", rows)

    def remove(self, graphs: Sequence[str]) -> Counter[State]:
        """Forget graphs with all their tasks; gives how many of each state there were."""
        removed: Counter[State] = Counter()
        with self._transaction():
            for graph in graphs:
                for state, count in self._database.execute(
                    "select state, count(*) from tasks where graph = ? group by state", (graph,)
                ):
                    removed[State(state)] += count
            self._database.executemany("delete from tasks where graph = ?", [(graph,) for graph in graphs])
            self._database.executemany("delete from graphs where id = ?", [(graph,) for graph in graphs])
        return removed

    def counts(self) -> Counter[State]:
        """Tasks by state. Reads the whole index."""
        with self._refusals():
            found = self._database.execute("select state, count(*) from tasks group by state")
            return Counter({State(state): count for state, count in found})

    def bytes(self) -> int:
        """Of all graphs. Reads all of them."""
        with self._refusals():
            return int(self._database.execute("select coalesce(sum(bytes), 0) from graphs").fetchone()[0])

    def count(self, graph: str, states: Sequence[State]) -> int:
        """Tasks of a graph, in one of these states if any are given."""
        condition, values = _condition(graph, states)
        with self._refusals():
            return int(self._database.execute(f"select count(*) from tasks where true{condition}", values).fetchone()[0])

    def task(self, id: str) -> Row | None:
        with self._refusals():
            found = self._database.execute("select * from tasks where id = ?", (id,)).fetchone()
        return Row(*found) if found else None

    def tasks(self, ids: Sequence[str]) -> list[Row]:
        """Those of them that there are."""
        found = (self.task(id) for id in ids)
        return [row for row in found if row is not None]

    def names(self, graph: str) -> list[str]:
        """Full ids of a graph's tasks, in its order; empty for an unknown one."""
        with self._refusals():
            return [id for (id,) in self._database.execute("select id from tasks where graph = ? order by place", (graph,))]

    def page(self, before: int, count: int, graph: str, states: Sequence[State]) -> list[Row]:
        """At most `count` tasks of a place below `before`, newest first."""
        condition, values = _condition(graph, states)
        query = f"select * from tasks where place < ?{condition} order by place desc limit ?"
        with self._refusals():
            return [Row(*found) for found in self._database.execute(query, (before, *values, count))]

    def graph_of_key(self, key: str) -> str | None:
        """The graph that came with this idempotency key."""
        with self._refusals():
            found = self._database.execute("select id from graphs where key = ? and key != ''", (key,)).fetchone()
        return str(found[0]) if found else None

    def graphs(self, ids: Sequence[str]) -> list[str]:
        """Those of them that there are."""
        with self._refusals():
            return [id for id in ids if self._database.execute("select 1 from graphs where id = ?", (id,)).fetchone()]

    def newest(self) -> list[str]:
        """The graphs of the last `put`: of no others can it be unknown whether they have left memory."""
        with self._refusals():
            return [graph for (graph,) in self._database.execute("select graph from newest")]

    def resolve(self, prefix: str) -> list[str]:
        """The full ids that a person may mean, as Scheduler.resolve has them."""
        head, dot, short = prefix.partition(".")
        with self._refusals():
            query = "select id from graphs where id >= ? and id < ? limit ?"
            graphs = [id for (id,) in self._database.execute(query, (head, head + LAST_CHARACTER, MAX_MEANT))]
        if not dot or not prefix:
            return [prefix] if prefix in graphs else graphs if prefix else []
        meant = [name for graph in graphs for name in self.names(graph) if name[len(graph) + 1 :].startswith(short)]
        exact = [name for name in meant if name.partition(".")[2] == short]
        return [prefix] if prefix in meant else exact or meant

    def oldest(self, count: int) -> list[GraphRow]:
        """The graphs that ended first."""
        with self._refusals():
            return [
                GraphRow(*found) for found in self._database.execute("select * from graphs order by ended_at limit ?", (count,))
            ]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._refusals():
            self._database.execute("begin immediate")
            try:
                yield
                self._database.execute("commit")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("rollback")
                raise

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL if hasattr(error, "sqlite_errorcode") else False
            kind = DiskFull if full else SupervisorError
            raise kind(
                f"the archive cannot be used: {error}.",
                field=str(self._path),
                kept="Tasks stay in memory until it can; nothing is lost.",
                hint="Free some space." if full else "Look at the file: sqlite3 FILE 'pragma integrity_check'.",
            ) from error


def _condition(graph: str, states: Sequence[State]) -> tuple[str, list[str]]:
    condition, values = "", []
    if graph:
        condition, values = " and graph = ?", [graph]
    if states:
        condition += f" and state in ({', '.join('?' * len(states))})"
        values += [str(state) for state in states]
    return condition, values
