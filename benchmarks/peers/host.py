"""One visit to one peer in one setting, in a process of its own under the peer's own Python.

    python -m benchmarks.peers.host MODULE SETTING DIRECTORY WORK=COUNT...

All works are of one kind, with workers or without. Prints one JSON object a line: `versions`; for every work `work` with its
figures, or with `cannot`, or with `failed`, which is the last; `absent` or `broken` when the peer could not be started.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import catalog
from benchmarks.peers.children import adopt_orphans, descendants, kill
from benchmarks.peers.peer import Absent, Cannot, Peer
from benchmarks.peers.work import crash, memory, rates, submit

RUNS = {"submit_one": submit.run, "submit_64": submit.run, "memory": memory.run, "crash": crash.run}
MUST_START_S = 60
MUST_END_S = 60


class _Overdue(BaseException):
    """Not an Exception: no library may take it for one of its own errors and try again."""


def visit(module: str, setting: str, directory: Path, plan: list[str], tell: Callable[..., None]) -> None:
    """Start the peer and do the works. One that failed is the last: it may have left anything in the queue."""
    works = [(catalog.work(name), int(count)) for name, _, count in (item.partition("=") for item in plan)]
    directory.mkdir(parents=True)
    # Modules make their application when they are imported, as the libraries' documentation does.
    os.environ["BENCH_DIRECTORY"], os.environ["BENCH_SETTING"] = str(directory), setting
    peer: Peer = importlib.import_module(f"benchmarks.peers.{module}").PEER(directory, setting)
    tell(versions=peer.versions())
    signal.alarm(MUST_START_S)
    try:
        peer.start(works[0][0].workers)
        for work, count in works:
            signal.alarm(MUST_END_S + int(3 * work.limit_s))
            if not done(peer, work, count, tell):
                return
    finally:
        stop(peer)


def stop(peer: Peer) -> None:
    """End the peer. What cannot be ended this way is killed at the end of this process; the figures stand."""
    signal.alarm(MUST_START_S)
    try:
        peer.stop()
    except (Exception, _Overdue):
        traceback.print_exc()
    finally:
        signal.alarm(0)


def done(peer: Peer, work: catalog.Work, count: int, tell: Callable[..., None]) -> bool:
    """Do one work and tell how it went; False: it failed."""
    try:
        tell(work=work.name, **RUNS.get(work.name, rates.run)(peer, work, count))
    except Cannot as cannot:
        tell(work=work.name, cannot=str(cannot))
    except (Exception, _Overdue) as error:
        traceback.print_exc()
        tell(work=work.name, failed=said(error))
        return False
    return True


def said(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, _Overdue):
        return "did not end in time"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def overdue(*_: object) -> None:
    raise _Overdue


def main() -> int:
    module, setting, directory, *plan = sys.argv[1:]
    # Libraries print what they like: the report has a descriptor of its own.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(**fields: Any) -> None:
        print(json.dumps(fields), file=output, flush=True)

    adopt_orphans()
    signal.signal(signal.SIGALRM, overdue)
    try:
        visit(module, setting, Path(directory), plan, tell)
    except Absent as absent:
        tell(absent=str(absent))
    except (Exception, _Overdue) as error:
        traceback.print_exc()
        tell(broken=said(error))
    finally:
        kill(descendants(os.getpid()))
    return 0


if __name__ == "__main__":
    # Not through sys.exit: threads that a dead broker's client left behind must not hold the end up.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
