"""taskiq with RedisStreamBroker and RedisAsyncResultBackend, two worker processes that run one task at a time.

Durable: Redis with appendfsync always (redis_server.py); the stream's entry is acknowledged once the result is saved, and pending
ones are claimed again after the idle timeout ("Available brokers", taskiq-python.github.io, and the taskiq-redis project
page), here 5 s instead of ten minutes so that the crash test sees it. Fast: appendfsync everysec.
"""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import clients as many
from benchmarks.peers.peer import Cannot, Graph, mark
from benchmarks.peers.redis_server import version as redis_version
from benchmarks.peers.redis_workers import RedisWorkers

WAIT_S = 600
IDLE_MS = 5_000
AT_ONCE = 64
CHECK_S = 0.002


URL = "unix://" + os.environ["BENCH_DIRECTORY"] + "/redis/s"

broker = RedisStreamBroker(URL, consumer_id="0", idle_timeout=IDLE_MS, max_connection_pool_size=AT_ONCE + 2).with_result_backend(
    RedisAsyncResultBackend(URL, max_connection_pool_size=AT_ONCE)
)


@broker.task
async def noop() -> None:
    pass


@broker.task
async def true() -> None:
    process = await asyncio.create_subprocess_exec("/bin/true")
    if await process.wait():
        raise RuntimeError("/bin/true failed")


@broker.task
async def marked(number: int, path: str) -> None:
    mark(number, path)


class TaskiqRedis(RedisWorkers):
    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("taskiq", "taskiq-redis")} | {"redis": redis_version()}

    def start(self, workers: int) -> None:
        self._runner = asyncio.Runner()
        self.start_server(workers)
        self._runner.run(broker.startup())
        self.start_worker()
        if workers:
            self._bag(noop, workers)

    def worker_argv(self, processes: int) -> list[str]:
        argv = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", "--workers", str(processes)]
        return [*argv, "--max-async-tasks", "1", "--log-level", "WARNING"]

    def stop(self) -> None:
        self._runner.run(broker.shutdown())
        self._runner.close()
        self.stop_worker()
        self.stop_server()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        return self._runner.run(many.by_tasks([noop.kiq] * clients, each, limit_s))

    def noops(self, count: int) -> None:
        self._bag(noop, count)

    def processes(self, count: int) -> None:
        self._bag(true, count)

    def _bag(self, task: Any, count: int) -> None:
        self._runner.run(self._all(task, count))

    async def _all(self, task: Any, count: int) -> None:
        for sent in await self._sent(task, count):
            (await sent.wait_result(check_interval=CHECK_S, timeout=WAIT_S)).raise_for_error()

    async def _sent(self, task: Any, count: int) -> list[Any]:
        sent: list[Any] = []
        for first in range(0, count, AT_ONCE):
            sent += await asyncio.gather(*[task.kiq() for _ in range(min(AT_ONCE, count - first))])
        return sent

    def graph(self, graph: Graph) -> None:
        raise Cannot("no dependencies; taskiq-pipelines, another package, has sequences")

    def fill(self, count: int) -> None:
        self._runner.run(self._sent(noop, count))

    def submit_marked(self, number: int, path: Path) -> None:
        self._runner.run(marked.kiq(number, str(path)))


PEER = TaskiqRedis
