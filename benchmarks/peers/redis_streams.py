"""Redis Streams used as a queue by hand, with redis-py and hiredis: XADD, XREADGROUP of one, XACK, results in a list.

Durable: see redis_server.py; a worker that comes back takes up its pending entries first ("XREADGROUP", redis.io). The floor for
all that is built on Redis: no retries, no timeouts, no dependencies.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import redis

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child
from benchmarks.peers.peer import Unable, mark
from benchmarks.peers.redis_server import RedisServer, version

STREAM, GROUP, DONE = "tasks", "workers", "done"
NOOP, TRUE, MARK = "noop", "true", "mark"
BATCH = 1_000


class RedisStreams(Unable):
    def versions(self) -> dict[str, str]:
        return {"redis": version(), "redis-py": redis.__version__}

    def start(self, workers: int) -> None:
        self._server = RedisServer(self.directory, self.setting)
        self._server.start()
        self._client = redis.Redis(unix_socket_path=str(self._server.socket))
        self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        self._count = workers
        self._workers: list[Child] = []
        self._start_workers()

    def _start_workers(self) -> None:
        argv = [sys.executable, "-m", __name__, str(self._server.socket)]
        self._workers = [Child([*argv, str(number)], self.directory / "worker.log") for number in range(self._count)]

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._server.stop()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        connections = [redis.Redis(unix_socket_path=str(self._server.socket)) for _ in range(clients)]
        submitters = [lambda c=connection: c.xadd(STREAM, {"work": NOOP}) for connection in connections]
        return many.by_threads(submitters, each, limit_s)

    def noops(self, count: int) -> None:
        self._bag(NOOP, count)

    def processes(self, count: int) -> None:
        self._bag(TRUE, count)

    def _bag(self, work: str, count: int) -> None:
        self._many(work, count)
        ended = 0
        while ended < count:
            # The first is waited for, the others that are there come with it.
            popped = self._client.blmpop(600, 1, DONE, direction="LEFT", count=BATCH)
            assert popped is not None
            ended += len(popped[1])

    def _many(self, work: str, count: int) -> None:
        for first in range(0, count, BATCH):
            with self._client.pipeline(transaction=False) as pipe:
                for _ in range(min(BATCH, count - first)):
                    pipe.xadd(STREAM, {"work": work})
                pipe.execute()

    def fill(self, count: int) -> None:
        self._many(NOOP, count)

    def holders(self) -> list[int]:
        return self._server.pids

    def submit_marked(self, number: int, path: Path) -> None:
        self._client.xadd(STREAM, {"work": MARK, "number": number, "path": str(path)})

    def crash(self) -> None:
        self._server.kill()

    def recover(self) -> None:
        self._server.start()
        for worker in self._workers:
            worker.stop()
        self._start_workers()


def work_on(socket: str, number: str) -> None:
    """A worker: first what it had taken and not acknowledged, then new entries."""
    client = redis.Redis(unix_socket_path=socket)
    after = "0"
    parent = os.getppid()
    while os.getppid() == parent:
        answer = client.xreadgroup(GROUP, f"worker-{number}", {STREAM: after}, count=1, block=1000)
        entries = answer[0][1] if answer else []
        if not entries:
            after = ">"
            continue
        entry, fields = entries[0]
        if fields[b"work"] == TRUE.encode():
            subprocess.run(["/bin/true"], check=True)
        elif fields[b"work"] == MARK.encode():
            mark(int(fields[b"number"]), fields[b"path"].decode())
        with client.pipeline(transaction=False) as pipe:
            pipe.xack(STREAM, GROUP, entry)
            pipe.rpush(DONE, entry)
            pipe.execute()


PEER = RedisStreams

if __name__ == "__main__":
    work_on(*sys.argv[1:])
