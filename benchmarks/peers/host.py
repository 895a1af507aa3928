"""One visit to one peer in one setting, in a process of its own under the peer's own Python.

    python -m benchmarks.peers.host MODULE SETTING DIRECTORY WORK=COUNT...

Prints one JSON object a line: `{"versions": …}`, then for every work `{"work": …, …}` with figures, or `cannot`, or `failed`.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from benchmarks.peers import catalog
from benchmarks.peers.children import adopt_orphans, descendants, kill, reap
from benchmarks.peers.peer import Absent, Cannot, Peer
from benchmarks.peers.work import crash, memory, rates, submit

RUNS = {"submit_one": submit.run, "submit_64": submit.run, "memory": memory.run, "crash": crash.run}
MUST_END_S = 60


class _Overdue(BaseException):
    """Not an Exception: no library may take it for one of its own errors and try again."""


class Visit:
    """Does the works one after the other; a peer that failed at one is started anew for the next."""

    def __init__(self, module: str, setting: str, directory: Path, output: TextIO) -> None:
        self._module, self._setting, self._directory = module, setting, directory
        self._output = output
        self._peer: Peer | None = None
        self._workers = -1
        self._starts = 0

    def tell(self, **fields: Any) -> None:
        print(json.dumps(fields), file=self._output, flush=True)

    def do(self, work: catalog.Work, count: int) -> None:
        run = RUNS.get(work.name, rates.run)
        signal.alarm(MUST_END_S)
        try:
            self.tell(work=work.name, **run(self._started(work.workers), work, count))
        except Cannot as cannot:
            self.tell(work=work.name, cannot=str(cannot))
        except Absent:
            raise
        except (Exception, _Overdue) as error:
            signal.alarm(0)
            traceback.print_exc()
            self.tell(work=work.name, failed=said(error))
            self.stop()
        finally:
            signal.alarm(0)

    def _started(self, workers: int) -> Peer:
        if self._peer is not None and self._workers == workers:
            return self._peer
        self.stop()
        self._starts += 1
        directory = self._directory / str(self._starts)
        directory.mkdir(parents=True)
        os.environ["BENCH_DIRECTORY"] = str(directory)
        os.environ["BENCH_SETTING"] = self._setting
        self._peer = importlib.import_module(f"benchmarks.peers.{self._module}").PEER(directory, self._setting)
        self._workers = workers
        if self._starts == 1:
            self.tell(versions=self._peer.versions())
        self._peer.start(workers)
        return self._peer

    def stop(self) -> None:
        """End the peer, and whatever it left."""
        signal.alarm(MUST_END_S)
        try:
            if self._peer is not None:
                self._peer.stop()
        except (Exception, _Overdue):
            traceback.print_exc()
        finally:
            signal.alarm(0)
            self._peer = None
            kill(descendants(os.getpid()))
            reap()
            shutil.rmtree(self._directory / str(self._starts), ignore_errors=True)


def said(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, _Overdue):
        return f"did not end within {MUST_END_S} s"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def overdue(*_: object) -> None:
    raise _Overdue


def main() -> int:
    module, setting, directory, *plan = sys.argv[1:]
    # Libraries print what they like: the report has a descriptor of its own.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    adopt_orphans()
    signal.signal(signal.SIGALRM, overdue)
    visit = Visit(module, setting, Path(directory), output)
    try:
        for item in plan:
            name, _, count = item.partition("=")
            visit.do(catalog.work(name), int(count))
    except Absent as absent:
        visit.tell(absent=str(absent))
    finally:
        visit.stop()
    return 0


if __name__ == "__main__":
    # Not through sys.exit: threads that a dead broker's client left behind must not hold the end up.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
