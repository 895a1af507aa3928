"""task-spooler (`tsp`) with two slots; the client is its program, started for every submit.

There is no durable setting: the queue is in the server's memory, and every queued job waits as a process of its own, which counts
as memory (tsp(1)). A job may depend on one other: chains, but no joins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers import clients as many
from benchmarks.peers.children import descendants
from benchmarks.peers.peer import Absent, Cannot, Graph, Unable, marking_script

TRUE = ("/bin/true",)
MOST = 900
"""Jobs at a time: the server has a file descriptor for each."""


class TaskSpooler(Unable):
    most_queued = MOST

    def versions(self) -> dict[str, str]:
        if shutil.which("tsp") is None:
            raise Absent("tsp is not installed: Debian's package task-spooler")
        said = subprocess.run(["tsp", "-V"], capture_output=True, text=True, check=False).stdout
        return {"task-spooler": said.partition(" v")[2].split(" ")[0].split("-")[0] or said.strip()}

    def start(self, workers: int) -> None:
        self._environment = {
            **os.environ,
            "TS_SOCKET": str(self.directory / "s"),
            "TMPDIR": str(self.directory),
            "TS_MAXCONN": str(MOST + 90),
            "TS_MAXFINISHED": "2000",
            "TS_SLOTS": str(max(workers, 1)),
        }
        if not workers:
            self._tsp("-n", "sleep", "3600")

    def stop(self) -> None:
        self._tsp("-K")

    def _tsp(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tsp", *arguments], env=self._environment, capture_output=True, text=True, check=False, cwd=self.directory
        )
        if done.returncode and arguments[0] != "-w":
            raise RuntimeError(f"tsp {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        def submit() -> None:
            self._tsp("-n", *TRUE)

        return many.by_threads([submit] * clients, min(each, MOST // (4 * clients)), limit_s)

    def processes(self, count: int) -> None:
        jobs = [self._tsp("-n", *TRUE) for _ in range(count)]
        for job in jobs[-2:]:
            self._tsp("-w", job)

    def graph(self, graph: Graph) -> None:
        if graph.shape != "chain":
            raise Cannot("a job depends on one other at most")
        job = self._tsp("-n", *TRUE)
        for _ in graph.dependencies[1:]:
            job = self._tsp("-n", "-D", job, *TRUE)
        self._tsp("-w", job)

    def fill(self, count: int) -> None:
        for _ in range(count):
            self._tsp("-n", *TRUE)

    def holders(self) -> list[int]:
        return descendants(os.getpid())

    def submit_marked(self, number: int, path: Path) -> None:
        self._tsp("-n", *marking_script(number, str(path)))

    def crash(self) -> None:
        raise Cannot("its server cannot be told from its clients from outside; the manual says that the queue is lost with it")


PEER = TaskSpooler
