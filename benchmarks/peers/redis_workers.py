"""What the peers have in common whose broker is Redis and whose workers are one child process with its own children."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.peers.children import Child
from benchmarks.peers.peer import Unable
from benchmarks.peers.redis_server import RedisServer


class RedisWorkers(Unable):
    """The server and the worker of a peer, which come and go together, and of which the server can be killed."""

    worker_environment: ClassVar[dict[str, str]] = {}

    def worker_argv(self, processes: int) -> list[str]:
        raise NotImplementedError

    def start_server(self, workers: int) -> None:
        """Before `start_worker`, which starts a worker of so many processes; 0: none."""
        self._count = workers
        self._worker: Child | None = None
        self._server = RedisServer(self.directory, self.setting)
        self._server.start()

    def start_worker(self) -> None:
        if self._count:
            argv = self.worker_argv(self._count)
            self._worker = Child(argv, self.directory / "worker.log", environment=self.worker_environment)

    def stop_worker(self) -> None:
        """Before `stop_server`."""
        if self._worker is not None:
            self._worker.stop(grace_s=3.0)

    def stop_server(self) -> None:
        self._server.stop()

    def holders(self) -> list[int]:
        return self._server.pids

    def crash(self) -> None:
        self._server.kill()

    def recover(self) -> None:
        self._server.start()
        if self._worker is not None and not self._worker.running:
            self.start_worker()
