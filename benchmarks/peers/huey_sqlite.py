"""Huey with SqliteHuey, two worker processes of its consumer.

Durable: fsync=True sets synchronous=FULL; fsync=False is synchronous=OFF ("SqliteHuey", huey.readthedocs.io). A task is taken out
of the queue before it runs, so the consumer's death loses what it was running. Workers poll; the delay is set to 1 ms, by
default it is 100 ms. There is no broker: what is killed is the consumer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import huey as library
from huey import SqliteHuey
from huey.api import chord

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child, bin_of
from benchmarks.peers.peer import Cannot, Graph, Unable, mark

POLL_S = 0.001
WAIT_S = 600
SETTINGS = {"fsync": True, "nosync": False}

app = SqliteHuey(
    filename=os.environ["BENCH_DIRECTORY"] + "/huey.sqlite",
    fsync=SETTINGS[os.environ["BENCH_SETTING"]],
    store_none=True,
    timeout=60,
)


@app.task()
def noop(*_: object) -> None:
    pass


@app.task()
def true() -> None:
    subprocess.run(["/bin/true"], check=True)


@app.task()
def marked(number: int, path: str) -> None:
    mark(number, path)


class HueySqlite(Unable):
    def versions(self) -> dict[str, str]:
        return {"huey": version("huey"), "sqlite": library.storage.sqlite3.sqlite_version}

    def start(self, workers: int) -> None:
        self._workers = workers
        self._consumer: Child | None = None
        self._start_consumer()

    def _start_consumer(self) -> None:
        if self._workers:
            argv = [sys.executable, bin_of("huey_consumer"), f"{__name__}.app", "-w", str(self._workers), "-k", "process"]
            argv += ["-d", str(POLL_S), "-m", str(POLL_S), "-b", "1", "-n"]
            self._consumer = Child(argv, self.directory / "consumer.log")

    def stop(self) -> None:
        if self._consumer is not None:
            self._consumer.stop(signal.SIGTERM)
        app.storage.close()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        return many.by_threads([noop] * clients, each, limit_s)

    def noops(self, count: int) -> None:
        self._bag(noop, count)

    def processes(self, count: int) -> None:
        self._bag(true, count)

    def _bag(self, task: library.api.TaskWrapper, count: int) -> None:
        for result in [task() for _ in range(count)]:
            result.get(blocking=True, timeout=WAIT_S, backoff=1.0, max_delay=POLL_S)

    def graph(self, graph: Graph) -> None:
        if graph.shape == "layers":
            raise Cannot("pipelines and chords, no general graph")
        if graph.shape == "chain":
            first = noop.s()
            for _ in graph.dependencies[1:]:
                first.then(noop)
            *_, last = app.enqueue(first)
            last.get(blocking=True, timeout=WAIT_S, backoff=1.0, max_delay=POLL_S)
            return
        noop().get(blocking=True, timeout=WAIT_S, backoff=1.0, max_delay=POLL_S)
        middle = [noop.s() for _ in graph.dependencies[1:-1]]
        ended = app.enqueue(chord(middle, noop.s()))
        ended.get(blocking=True, timeout=WAIT_S, backoff=1.0, max_delay=POLL_S)

    def submit_marked(self, number: int, path: Path) -> None:
        marked(number, str(path))

    def crash(self) -> None:
        assert self._consumer is not None
        self._consumer.kill()

    def recover(self) -> None:
        self._start_consumer()


PEER = HueySqlite
