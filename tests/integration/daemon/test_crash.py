"""kill -9 of the daemon, at any moment, under load: nothing acknowledged is lost, nothing runs to completion twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.crashes import crash

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "200"))
"""`make crash` makes 1,000; rare orders of events are for tests/simulation, in which a life of the daemon costs a hundredth."""
SEED = int(os.environ.get("CRASH_SEED", "1"))
DAEMONS = 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_crashes_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    summary = await crash(tmp_path, rounds=ROUNDS, daemons=DAEMONS, seed=SEED)
    print(summary.text())
    assert not summary.faults, summary.text()
    assert summary.rounds == ROUNDS
    assert summary.succeeded > 0
