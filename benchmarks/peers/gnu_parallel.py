"""GNU parallel with two job slots, fed a list on standard input.

It is no queue: nothing takes single tasks and nothing waits for a broker. --joblog writes a line for every job that has ended,
with which --resume can skip it ("--joblog" and "--resume", parallel(1)); it does not sync.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from benchmarks.peers.peer import WORKERS, Absent, Cannot, Graph, Unable


class GnuParallel(Unable):
    def versions(self) -> dict[str, str]:
        if shutil.which("parallel") is None:
            raise Absent("parallel is not installed: Debian's package parallel")
        said = subprocess.run(["parallel", "--version"], capture_output=True, text=True, check=True).stdout
        return {"parallel": said.split()[2]}

    def start(self, workers: int) -> None:
        self._environment = {**os.environ, "HOME": str(self.directory), "TMPDIR": str(self.directory)}
        (self.directory / ".parallel").mkdir()
        (self.directory / ".parallel" / "will-cite").touch()

    def stop(self) -> None:
        pass

    def processes(self, count: int) -> None:
        log = ["--joblog", str(self.directory / "joblog")] if self.setting == "joblog" else []
        subprocess.run(
            ["parallel", "--will-cite", "-j", str(WORKERS), *log, "-N0", "/bin/true"],
            input="\n" * count,
            text=True,
            check=True,
            env=self._environment,
            cwd=self.directory,
        )

    def graph(self, graph: Graph) -> None:
        raise Cannot("no dependencies")

    def submit_marked(self, number: int, path: os.PathLike[str]) -> None:
        raise Cannot("no queue")


PEER = GnuParallel
