"""What a queued task costs: growth of resident memory of all that keeps the queue. No worker runs."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.peers.catalog import Work
from benchmarks.peers.children import resident_bytes
from benchmarks.peers.peer import Peer

FIRST = 1_000
LEAST = 100


def run(peer: Peer, work: Work, count: int) -> dict[str, Any]:
    """`bytes` a task. Raises Cannot where no process keeps the queue. As in rates.py a slow peer gets fewer tasks."""
    peer.holders()
    rate = _rate(peer, LEAST)
    first = max(LEAST, min(FIRST, int(rate * work.limit_s / 10), peer.most_queued // 4))
    rate = _rate(peer, first)
    chosen = max(first, min(count, int(rate * work.limit_s), peer.most_queued - LEAST - first))
    before = resident_bytes(peer.holders())
    peer.fill(chosen)
    return {"count": chosen, "wanted": count, "bytes": (resident_bytes(peer.holders()) - before) / chosen}


def _rate(peer: Peer, count: int) -> float:
    begin = time.perf_counter()
    peer.fill(count)
    return count / (time.perf_counter() - begin)
