"""HyperQueue by its Python API: a local cluster of two cores in a process of its own; every task is a process.

The journal is an option of `hq server start` ("Resuming stopped/crashed server", it4innovations.github.io/hyperqueue); the
Python package on PyPI brings no `hq`, and its LocalCluster has no such option, so the setting `journal` is always skipped.

Client.wait_for_jobs looks once a second; so the end is told by a last task, which depends on the others and makes a file.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child, wait_until
from benchmarks.peers.peer import Absent, Graph, Unable, marking_script

TRUE = ["/bin/true"]
READY = "ready"
WAIT_S = 600


class HyperQueue(Unable):
    def versions(self) -> dict[str, str]:
        if self.setting == "journal":
            found = shutil.which("hq")
            raise Absent(
                f"not tried with {found}" if found else "the program hq, which has --journal, is not in the PyPI package"
            )
        return {"hyperqueue": version("hyperqueue")}

    def start(self, workers: int) -> None:
        self._count = workers
        self._starts = 0
        self._start_cluster()

    def _start_cluster(self) -> None:
        self._starts += 1
        home = self.directory / f"server-{self._starts}"
        argv = [sys.executable, "-m", __name__, str(home), str(self._count)]
        self._cluster = Child(argv, self.directory / f"server-{self._starts}.log")
        self._cluster.wait_until(lambda: self._cluster.said(READY), "HyperQueue")
        self._home = home
        self._client = self._connected()

    def _connected(self) -> object:
        from hyperqueue import Client

        return Client(self._home)

    def stop(self) -> None:
        self._cluster.stop(grace_s=1.0)

    def _job(self) -> object:
        from hyperqueue import Job

        return Job(default_workdir=self.directory, max_fails=None)

    def _add(self, job: object, argv: list[str], dependencies: tuple[object, ...] = ()) -> object:
        return job.program(argv, stdout=None, stderr=None, deps=dependencies)  # type: ignore[attr-defined]

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        def submitter() -> object:
            client = self._connected()

            def submit() -> None:
                job = self._job()
                self._add(job, TRUE)
                client.submit(job)  # type: ignore[attr-defined]

            return submit

        return many.by_threads([submitter() for _ in range(clients)], each, limit_s)  # type: ignore[misc]

    def processes(self, count: int) -> None:
        self._run(Graph("bag", ((),) * count))

    def graph(self, graph: Graph) -> None:
        self._run(graph)

    def _run(self, graph: Graph) -> None:
        job = self._job()
        tasks: list[object] = []
        for dependencies in graph.dependencies:
            tasks.append(self._add(job, TRUE, tuple(tasks[above] for above in dependencies)))
        waited_for = {above for dependencies in graph.dependencies for above in dependencies}
        ends = tuple(task for number, task in enumerate(tasks) if number not in waited_for)
        flag = self.directory / "ended"
        self._add(job, ["/usr/bin/touch", str(flag)], ends)
        self._client.submit(job)  # type: ignore[attr-defined]
        wait_until(flag.exists, "the end of the job", WAIT_S)
        flag.unlink()

    def fill(self, count: int) -> None:
        job = self._job()
        for _ in range(count):
            self._add(job, TRUE)
        self._client.submit(job)  # type: ignore[attr-defined]

    def holders(self) -> list[int]:
        return [self._cluster.pid]

    def submit_marked(self, number: int, path: Path) -> None:
        job = self._job()
        self._add(job, marking_script(number, str(path)))
        self._client.submit(job)  # type: ignore[attr-defined]

    def crash(self) -> None:
        self._cluster.kill()

    def recover(self) -> None:
        self._start_cluster()


def serve(home: str, cores: str) -> None:
    """The cluster, until its parent has gone."""
    from hyperqueue import LocalCluster
    from hyperqueue.cluster import WorkerConfig

    cluster = LocalCluster(server_dir=home)  # type: ignore[arg-type]
    if int(cores):
        cluster.start_worker(WorkerConfig(cores=int(cores)))
    print(READY, flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)


logging.getLogger().setLevel(logging.WARNING)

PEER = HyperQueue

if __name__ == "__main__":
    serve(*sys.argv[1:])
