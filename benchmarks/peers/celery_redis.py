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
from typing import ClassVar

from celery import Celery, chain, chord, group
from celery.result import ResultSet

from benchmarks.peers import clients as many
from benchmarks.peers.peer import Cannot, Graph, mark
from benchmarks.peers.redis_server import version as redis_version
from benchmarks.peers.redis_workers import RedisWorkers

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


class CeleryRedis(RedisWorkers):
    worker_environment: ClassVar[dict[str, str]] = {"C_FORCE_ROOT": "1"}

    def versions(self) -> dict[str, str]:
        return {"celery": version("celery"), "redis": redis_version(), "redis-py": version("redis")}

    def start(self, workers: int) -> None:
        self.start_server(workers)
        self.start_worker()
        if workers:
            noop.delay().get(timeout=60)

    def worker_argv(self, processes: int) -> list[str]:
        argv = [sys.executable, "-m", "celery", "-A", __name__, "worker", "-P", "prefork", "-c", str(processes)]
        return [*argv, "-l", "WARNING", "--without-gossip", "--without-mingle"]

    def stop(self) -> None:
        self.stop_worker()
        app.close()
        self.stop_server()

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

    def submit_marked(self, number: int, path: Path) -> None:
        marked.apply_async((number, str(path)), retry=False)


PEER = CeleryRedis
