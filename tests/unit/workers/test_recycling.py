"""When a worker is replaced though it could go on."""

from __future__ import annotations

import os

import pytest

from supervisord_agents.config import Pool
from supervisord_agents.workers.recycling import Wear, own_memory_bytes

MIB = 1 << 20
POOL = Pool(recycle_after_tasks=3, recycle_after_s=100.0, recycle_memory_bytes=10 * MIB)


def worn(*memory: int, now: float = 0.0) -> str:
    wear = Wear(0.0)
    for some in memory:
        wear.tasks += 1
        wear.measured(some)
    return wear.out(POOL, now)


@pytest.mark.parametrize(
    ("memory", "now", "why"),
    [
        ((5, 5), 100.0, ""),
        ((5, 5, 5), 0.0, "3 tasks"),
        ((5,), 101.0, "101 s old"),
        ((500,), 0.0, ""),
        ((5 * MIB, 15 * MIB), 0.0, ""),
        ((5 * MIB, 16 * MIB), 0.0, "grown by 11 MiB"),
        ((16 * MIB, 5 * MIB), 0.0, ""),
        ((0, 16 * MIB), 0.0, ""),
        ((5 * MIB, 0), 0.0, ""),
    ],
)
def test_a_worker_is_worn_out_by_tasks_time_or_growth_since_its_first_task(memory: tuple[int, ...], now: float, why: str) -> None:
    assert why in worn(*memory, now=now)
    assert bool(why) == bool(worn(*memory, now=now))


def test_growth_counts_for_nothing_where_it_is_not_limited() -> None:
    wear = Wear(0.0)
    wear.measured(1)
    wear.measured(1 << 40)
    assert wear.out(Pool(recycle_memory_bytes=0), 0.0) == ""


def test_memory_of_its_own_is_that_which_it_has_written() -> None:
    before = own_memory_bytes(os.getpid())
    written = bytearray(b"x" * (64 * MIB))
    assert own_memory_bytes(os.getpid()) - before > 48 * MIB
    assert len(written) == 64 * MIB
    assert own_memory_bytes(0) == 0
