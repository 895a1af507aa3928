"""kill -9 of the broker while tasks are submitted and run: which acknowledged ones are lost, which run twice.

Each task appends a line to a file when it begins, and another when it has ended. Lost is what never ended, twice what began more
than once. The kernel survives, so this says nothing of a power cut: what a
setting leaves to the kernel's cache is safe here.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.catalog import Work
from benchmarks.peers.peer import Peer

HANG_S = 5.0
DOWN_S = 0.3
LINGER_S = 1.0
LOOK_S = 0.002


class _Hung(Exception):
    pass


def run(peer: Peer, work: Work, count: int) -> dict[str, Any]:
    """`acknowledged`, `lost`, `twice`; `stall_s`: how long nothing was run before the rest was given up as lost."""
    path = peer.directory / "ran"
    path.touch()
    path.chmod(0o666)
    acknowledged: list[int] = []
    killed = threading.Event()
    problems: list[Exception] = []

    def killer() -> None:
        while len(acknowledged) < count // 2 or not path.stat().st_size:
            time.sleep(LOOK_S)
        try:
            peer.crash()
        except Exception as error:
            problems.append(error)
        killed.set()

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    for number in range(count):
        try:
            with _not_longer_than(HANG_S):
                peer.submit_marked(number, path)
        except Exception:
            if not killed.is_set() and not killed.wait(1.0):
                raise
            break
        acknowledged.append(number)
    thread.join(30)
    if problems:
        raise problems[0]
    time.sleep(DOWN_S)
    peer.recover()
    _until_run(path, set(acknowledged), work.limit_s)
    time.sleep(LINGER_S)
    begun, ended = _marks(path)
    return {
        "acknowledged": len(acknowledged),
        "lost": len(set(acknowledged) - ended.keys()),
        "twice": sum(times > 1 for times in begun.values()),
        "stall_s": work.limit_s,
    }


def _until_run(path: Path, wanted: set[int], stall_s: float) -> None:
    size, since = -1, time.monotonic()
    while time.monotonic() - since < stall_s:
        if path.stat().st_size != size:
            size, since = path.stat().st_size, time.monotonic()
            if wanted <= _marks(path)[1].keys():
                return
        time.sleep(0.05)


def _marks(path: Path) -> tuple[Counter[int], Counter[int]]:
    """How often each task began, and how often it ended."""
    lines = path.read_text().split()
    begun = Counter(int(line) for line in lines if not line.endswith("."))
    return begun, Counter(int(line[:-1]) for line in lines if line.endswith("."))


@contextlib.contextmanager
def _not_longer_than(seconds: float) -> Iterator[None]:
    """Clients that wait for a dead broker for ever are stopped, by SIGALRM."""

    def hung(*_: object) -> None:
        raise _Hung

    before = signal.signal(signal.SIGALRM, hung)
    rest, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, rest)
        signal.signal(signal.SIGALRM, before)
