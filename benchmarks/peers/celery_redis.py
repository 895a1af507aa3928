"""Celery with Redis as broker and result backend, a prefork pool of two processes.

Durable: Redis with appendfsync always (redis_server.py), and acks_late with a prefetch multiplier of 1, so that a task is
acknowledged after it ran; unacknowledged ones come back after the visibility timeout ("Using Redis" and "Tasks",
docs.celeryq.dev), here 5 s instead of an hour so that the crash test sees it. Fast: appendfsync everysec and Celery's defaults.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from celery import Celery, chain, chord, group
from celery.result import ResultSet

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child
from benchmarks.peers.peer import Cannot, Graph, Unable, mark
from benchmarks.peers.redis_server import RedisServer
from benchmarks.peers.redis_server import version as redis_version

WAIT_S = 600
VISIBILITY_S = 5
DURABLE = os.environ["BENCH_SETTING"] == "always"

URL = "redis+socket://" + os.environ["BENCH_DIRECTORY"] + "/redis/s"

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": VISIBILITY_S} if DURABLE else {},
    task_acks_late=DURABLE,
    task_reject_on_worker_lost=DURABLE,
    worker_prefetch_multiplier=1 if DURABLE else 4,
)


@app.task
def noop(*_: object) -> None:
    pass


@app.task
def true() -> None:
    subprocess.run(["/bin/true"], check=True)


@app.task
def marked(number: int, path: str) -> None:
    mark(number, path)


class CeleryRedis(Unable):
    def versions(self) -> dict[str, str]:
        return {"celery": version("celery"), "redis": redis_version(), "redis-py": version("redis")}

    def start(self, workers: int) -> None:
        self._count = workers
        self._worker: Child | None = None
        self._server = RedisServer(self.directory, self.setting)
        self._server.start()
        self._start_worker()
        if workers:
            noop.delay().get(timeout=60)

    def _start_worker(self) -> None:
        if self._count:
            argv = [sys.executable, "-m", "celery", "-A", __name__, "worker", "-P", "prefork", "-c", str(self._count)]
            argv += ["-l", "WARNING", "--without-gossip", "--without-mingle"]
            environment = {"C_FORCE_ROOT": "1"}
            self._worker = Child(argv, self.directory / "worker.log", environment=environment)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop(grace_s=3.0)
        app.close()
        self._server.stop()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        return many.by_threads([noop.delay] * clients, each, limit_s)

    def noops(self, count: int) -> None:
        self._bag(noop, count)

    def processes(self, count: int) -> None:
        self._bag(true, count)

    def _bag(self, task: object, count: int) -> None:
        ResultSet([task.delay() for _ in range(count)]).join_native(timeout=WAIT_S)  # type: ignore[attr-defined]

    def graph(self, graph: Graph) -> None:
        if graph.shape == "layers":
            raise Cannot("canvas has chains, groups and chords, no general graph")
        if graph.shape == "chain":
            chain(*[noop.si() for _ in graph.dependencies])().get(timeout=WAIT_S)
            return
        middle = group([noop.si() for _ in graph.dependencies[1:-1]])
        chain(noop.si(), chord(middle, noop.si()))().get(timeout=WAIT_S)

    def fill(self, count: int) -> None:
        for _ in range(count):
            noop.delay()

    def holders(self) -> list[int]:
        return self._server.pids

    def submit_marked(self, number: int, path: Path) -> None:
        marked.apply_async((number, str(path)), retry=False)

    def crash(self) -> None:
        self._server.kill()

    def recover(self) -> None:
        self._server.start()
        if self._worker is not None and not self._worker.running:
            self._start_worker()


PEER = CeleryRedis
