"""Submits as the client feels them: seconds from the call until the task is acknowledged. No worker runs."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.peers.catalog import Work
from benchmarks.peers.peer import Peer

CLIENTS = {"submit_one": 1, "submit_64": 64}


def run(peer: Peer, work: Work, count: int) -> dict[str, Any]:
    """`p50_ms`, `p99_ms`, `per_s`, and all times in µs for the plot."""
    clients = CLIENTS[work.name]
    times, elapsed = peer.submits(clients, count, work.limit_s)
    return {
        "count": len(times),
        "clients": clients,
        "p50_ms": statistics.median(times) * 1e3,
        "p99_ms": statistics.quantiles(times, n=100)[98] * 1e3 if len(times) > 1 else times[0] * 1e3,
        "per_s": len(times) / elapsed,
    }
