"""SQLite as the journal of a queue: one table, an INSERT a submit, workers that claim by UPDATE … RETURNING.

Durable: WAL with synchronous=FULL, which syncs the WAL at every commit; NORMAL may lose the last commits in a power cut ("PRAGMA
synchronous" and "Write-Ahead Logging", sqlite.org). There is no broker; what is killed are the workers.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child, wait_until
from benchmarks.peers.peer import Unable, mark

POLL_S = 0.001
NOOP, TRUE, MARK = "noop", "true", "mark"


def connect(file: Path, setting: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=60.0, check_same_thread=False)
    connection.execute("pragma journal_mode=wal")
    connection.execute(f"pragma synchronous={setting}")
    return connection


class SqliteJournal(Unable):
    def versions(self) -> dict[str, str]:
        return {"sqlite": sqlite3.sqlite_version}

    def start(self, workers: int) -> None:
        self._file = self.directory / "journal.sqlite"
        self._connection = connect(self._file, self.setting)
        self._connection.execute(
            "create table tasks (id integer primary key, state integer not null default 0, work text, argument text)"
        )
        self._connection.execute("create index ready on tasks (state, id)")
        self._count = workers
        self._workers: list[Child] = []
        self._start_workers()

    def _start_workers(self) -> None:
        argv = [sys.executable, "-m", __name__, str(self._file), self.setting]
        self._workers = [Child(argv, self.directory / "worker.log") for _ in range(self._count)]

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._connection.close()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        connections = [connect(self._file, self.setting) for _ in range(clients)]
        submitters = [lambda c=connection: self._insert(c, NOOP, "") for connection in connections]
        return many.by_threads(submitters, each, limit_s)

    def _insert(self, connection: sqlite3.Connection, work: str, argument: str) -> None:
        connection.execute("insert into tasks (work, argument) values (?, ?)", (work, argument))

    def noops(self, count: int) -> None:
        self._bag(NOOP, count)

    def processes(self, count: int) -> None:
        self._bag(TRUE, count)

    def _bag(self, work: str, count: int) -> None:
        self._many(work, count)
        unfinished = "select exists (select 1 from tasks where state < 2)"
        wait_until(lambda: not self._connection.execute(unfinished).fetchone()[0], "the end of the tasks", 600)

    def _many(self, work: str, count: int) -> None:
        self._connection.execute("begin")
        self._connection.executemany("insert into tasks (work, argument) values (?, '')", [(work,)] * count)
        self._connection.execute("commit")

    def fill(self, count: int) -> None:
        self._many(NOOP, count)

    def submit_marked(self, number: int, path: Path) -> None:
        self._insert(self._connection, MARK, f"{number} {path}")

    def crash(self) -> None:
        for worker in self._workers:
            worker.kill()

    def recover(self) -> None:
        self._connection.execute("update tasks set state = 0 where state = 1")
        self._start_workers()


def work_on(file: str, setting: str) -> None:
    """A worker: claim, run, record the end; the documentation's way of a queue in one table."""
    connection = connect(Path(file), setting)
    claim = (
        "update tasks set state = 1 where id = (select id from tasks where state = 0 order by id limit 1)"
        " returning id, work, argument"
    )
    parent = os.getppid()
    while os.getppid() == parent:
        rows = connection.execute(claim).fetchall()
        if not rows:
            time.sleep(POLL_S)
            continue
        number, work, argument = rows[0]
        if work == TRUE:
            subprocess.run(["/bin/true"], check=True)
        elif work == MARK:
            which, _, path = argument.partition(" ")
            mark(int(which), path)
        connection.execute("update tasks set state = 2 where id = ?", (number,))


PEER = SqliteJournal

if __name__ == "__main__":
    work_on(*sys.argv[1:])
