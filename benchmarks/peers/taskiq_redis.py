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
from benchmarks.peers.children import Child
from benchmarks.peers.peer import Cannot, Graph, Unable, mark
from benchmarks.peers.redis_server import RedisServer
from benchmarks.peers.redis_server import version as redis_version

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


class TaskiqRedis(Unable):
    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("taskiq", "taskiq-redis")} | {"redis": redis_version()}

    def start(self, workers: int) -> None:
        self._worker: Child | None = None
        self._count = workers
        self._runner = asyncio.Runner()
        self._server = RedisServer(self.directory, self.setting)
        self._server.start()
        self._runner.run(broker.startup())
        self._start_worker()
        if workers:
            self._bag(noop, workers)

    def _start_worker(self) -> None:
        if self._count:
            argv = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", "--workers", str(self._count)]
            argv += ["--max-async-tasks", "1", "--log-level", "WARNING"]
            self._worker = Child(argv, self.directory / "worker.log")

    def stop(self) -> None:
        self._runner.run(broker.shutdown())
        self._runner.close()
        if self._worker is not None:
            self._worker.stop(grace_s=3.0)
        self._server.stop()

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

    def holders(self) -> list[int]:
        return self._server.pids

    def submit_marked(self, number: int, path: Path) -> None:
        self._runner.run(marked.kiq(number, str(path)))

    def crash(self) -> None:
        self._server.kill()

    def recover(self) -> None:
        self._server.start()
        if self._worker is not None and not self._worker.running:
            self._start_worker()


PEER = TaskiqRedis
