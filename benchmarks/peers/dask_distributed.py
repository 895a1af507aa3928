"""Dask distributed: a scheduler process, two workers of one thread, and the client that the harness is.

There is no durable setting: the scheduler keeps everything in memory ("Resilience", distributed.dask.org). `Client.submit`
returns before the scheduler has the task, so its times are no acknowledgements. The client holds a future of every task, so
its memory counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from distributed import Client, wait

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child, free_port
from benchmarks.peers.peer import Graph, Unable, mark

WAIT_S = 600


def noop(*_: object) -> None:
    pass


def true(_: int) -> None:
    subprocess.run(["/bin/true"], check=True)


class DaskDistributed(Unable):
    def versions(self) -> dict[str, str]:
        return {"distributed": version("distributed")}

    def start(self, workers: int) -> None:
        self._kept: list[object] = []
        self._marked: list[object] = []
        self._address = f"tcp://127.0.0.1:{free_port()}"
        self._count = workers
        self._start_cluster()
        self._client = Client(self._address)
        if workers:
            self._client.wait_for_workers(workers, timeout=60)

    def _start_cluster(self) -> None:
        dask = [sys.executable, "-m", "dask"]
        host, port = self._address.removeprefix("tcp://").split(":")
        self._scheduler = Child(
            [*dask, "scheduler", "--host", host, "--port", port, "--no-dashboard"], self.directory / "scheduler.log"
        )
        worker = [*dask, "worker", self._address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", host]
        self._workers = [Child(worker, self.directory / "worker.log") for _ in range(self._count)]

    def stop(self) -> None:
        self._kept = []
        for child in [*self._workers, self._scheduler]:
            child.stop(grace_s=1.0)

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        def submit() -> None:
            self._kept.append(self._client.submit(noop, pure=False))

        return many.by_threads([submit] * clients, each, limit_s)

    def noops(self, count: int) -> None:
        wait(self._client.map(noop, range(count), pure=False), timeout=WAIT_S)

    def processes(self, count: int) -> None:
        wait(self._client.map(true, range(count), pure=False), timeout=WAIT_S)

    def graph(self, graph: Graph) -> None:
        futures: list[object] = []
        for dependencies in graph.dependencies:
            futures.append(self._client.submit(noop, *[futures[above] for above in dependencies], pure=False))
        wait(futures, timeout=WAIT_S)

    def fill(self, count: int) -> None:
        self._kept += self._client.map(noop, range(count), pure=False)
        # The scheduler answers only after what came before on the same connection.
        self._client.scheduler_info()
        self._client.sync(self._client.scheduler.identity)

    def holders(self) -> list[int]:
        return [self._scheduler.pid, os.getpid()]

    def submit_marked(self, number: int, path: Path) -> None:
        self._marked.append(self._client.submit(mark, number, str(path), pure=False))

    def crash(self) -> None:
        self._scheduler.kill()

    def recover(self) -> None:
        for worker in self._workers:
            worker.stop(grace_s=0.5)
        self._start_cluster()


PEER = DaskDistributed
