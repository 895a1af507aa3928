"""Ray tasks on a local cluster of two CPUs, the driver being the harness's client.

There is no durable setting for tasks: the driver owns them, and they end with it ("Fault tolerance", docs.ray.io). `.remote()`
returns before anybody else has the task, so its times are no acknowledgements. The driver holds the queue: it counts as memory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_TOKEN_PATH"] = os.environ["BENCH_DIRECTORY"] + "/auth_token"

import ray

from benchmarks.peers import clients as many
from benchmarks.peers.children import descendants
from benchmarks.peers.peer import Cannot, Graph, Unable

OBJECT_STORE_BYTES = 256 << 20


@ray.remote(num_cpus=1)
def noop(*_: object) -> None:
    pass


@ray.remote(num_cpus=1)
def true() -> None:
    subprocess.run(["/bin/true"], check=True)


class RayTasks(Unable):
    def versions(self) -> dict[str, str]:
        return {"ray": version("ray")}

    def start(self, workers: int) -> None:
        # Its socket paths are too long for any directory but a short one; nothing durable lies there.
        Path(os.environ["RAY_AUTH_TOKEN_PATH"]).write_text(secrets.token_hex(32))
        self._temporary = tempfile.mkdtemp(prefix="ray-")
        self._kept: list[object] = []
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=self._temporary,
        )
        if workers:
            self.noops(workers)

    def stop(self) -> None:
        self._kept = []
        try:
            ray.shutdown()
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        def submit() -> None:
            self._kept.append(noop.remote())

        return many.by_threads([submit] * clients, each, limit_s)

    def noops(self, count: int) -> None:
        ray.get([noop.remote() for _ in range(count)])

    def processes(self, count: int) -> None:
        ray.get([true.remote() for _ in range(count)])

    def graph(self, graph: Graph) -> None:
        references: list[object] = []
        for dependencies in graph.dependencies:
            references.append(noop.remote(*[references[above] for above in dependencies]))
        ray.get(references)

    def fill(self, count: int) -> None:
        self._kept += [noop.remote() for _ in range(count)]

    def holders(self) -> list[int]:
        return [os.getpid(), *descendants(os.getpid())]

    def submit_marked(self, number: int, path: Path) -> None:
        raise Cannot("the driver is the owner of its tasks, and ends when the cluster's head is killed")


PEER = RayTasks
