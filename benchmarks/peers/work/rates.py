"""Tasks a second from the first submit until the client knows that all have ended: no-ops, processes and graphs.

A first run of a fiftieth warms the workers and tells the rate; where the full count would take longer than the limit, fewer tasks
are run, and the count is in the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.catalog import Work
from benchmarks.peers.peer import SHAPES, Peer, graph

FIRST = 50
LEAST = 20


def run(peer: Peer, work: Work, count: int) -> dict[str, Any]:
    """`count` of tasks, `seconds`, `per_s`."""
    if work.name in SHAPES:
        return scaled(lambda number: peer.graph(graph(work.name, number)), count, work.limit_s)
    return scaled(peer.noops if work.name == "noops" else peer.processes, count, work.limit_s)


def scaled(action: Callable[[int], None], count: int, limit_s: float) -> dict[str, Any]:
    """Run as many of `count` as the limit has room for, by the rate of a first small run."""
    first = min(count, max(count // FIRST, LEAST))
    action(first)
    begin = time.perf_counter()
    action(first)
    rate = first / (time.perf_counter() - begin)
    chosen = max(first, min(count, int(rate * limit_s)))
    begin = time.perf_counter()
    action(chosen)
    seconds = time.perf_counter() - begin
    return {"count": chosen, "wanted": count, "seconds": seconds, "per_s": chosen / seconds}
