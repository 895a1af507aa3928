"""Dramatiq with Redis as broker, result backend and barrier, two worker processes of one thread.

Durable: Redis with appendfsync always (redis_server.py). Dramatiq acknowledges a message when its actor has returned ("Message
Brokers" and "Advanced Topics", dramatiq.io); messages of a worker whose heartbeat is older than a minute come back, here 5 s so
that the crash test sees it. Fast: appendfsync everysec.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import dramatiq
import redis
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as BarrierBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as ResultBackend

from benchmarks.peers import clients as many
from benchmarks.peers.peer import Cannot, Graph, mark
from benchmarks.peers.redis_server import version as redis_version
from benchmarks.peers.redis_workers import RedisWorkers

WAIT_MS = 600_000
HEARTBEAT_MS = 5_000


client = redis.Redis(unix_socket_path=os.environ["BENCH_DIRECTORY"] + "/redis/s")
broker = RedisBroker(client=client, heartbeat_timeout=HEARTBEAT_MS)
broker.add_middleware(Results(backend=ResultBackend(client=client), store_results=True))
broker.add_middleware(GroupCallbacks(BarrierBackend(client=client)))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(*_: object) -> None:
    pass


@dramatiq.actor
def true() -> None:
    subprocess.run(["/bin/true"], check=True)


@dramatiq.actor
def marked(number: int, path: str) -> None:
    mark(number, path)


class DramatiqRedis(RedisWorkers):
    def versions(self) -> dict[str, str]:
        return {"dramatiq": version("dramatiq"), "redis": redis_version(), "redis-py": version("redis")}

    def start(self, workers: int) -> None:
        self.start_server(workers)
        self.start_worker()
        if workers:
            noop.send().get_result(block=True, timeout=60_000)

    def worker_argv(self, processes: int) -> list[str]:
        return [sys.executable, "-m", "dramatiq", __name__, "--processes", str(processes), "--threads", "1"]

    def stop(self) -> None:
        self.stop_worker()
        self.stop_server()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        return many.by_threads([noop.send] * clients, each, limit_s)

    def noops(self, count: int) -> None:
        group([noop.message() for _ in range(count)]).run().wait(timeout=WAIT_MS)

    def processes(self, count: int) -> None:
        group([true.message() for _ in range(count)]).run().wait(timeout=WAIT_MS)

    def graph(self, graph: Graph) -> None:
        if graph.shape == "layers":
            raise Cannot("pipelines and groups, no general graph")
        if graph.shape == "chain":
            pipeline([noop.message() for _ in graph.dependencies]).run().get_result(block=True, timeout=WAIT_MS)
            return
        noop.send().get_result(block=True, timeout=WAIT_MS)
        last = noop.message()
        middle = group([noop.message() for _ in graph.dependencies[1:-1]])
        middle.add_completion_callback(last)
        middle.run()
        last.get_result(block=True, timeout=WAIT_MS)

    def fill(self, count: int) -> None:
        for _ in range(count):
            noop.send()

    def submit_marked(self, number: int, path: Path) -> None:
        marked.send(number, str(path))


PEER = DramatiqRedis
