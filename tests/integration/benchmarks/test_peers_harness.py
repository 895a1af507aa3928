"""The comparison with the peers works, on the two that need nothing installed: a quick run from start to table."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WORKS = "submit_one,submit_64,noops,processes,chain,crash"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_quick_run_of_the_cheapest_peers(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    argv = ["-m", "benchmarks.peers", "--quick", "--peers", "ours,sqlite_journal", "--works", WORKS, "--output", str(output)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()

    assert process.returncode == 0
    run = json.loads(output.read_text())
    assert run["skipped"] == {}
    for name in ("ours/only", "sqlite_journal/full", "sqlite_journal/normal"):
        cells = run["cells"][name]
        assert cells.keys() == set(WORKS.split(","))
        assert [cell for samples in cells.values() for cell in samples if "failed" in cell] == []
    assert run["cells"]["ours/only"]["crash"][0]["lost"] == 0
    assert run["cells"]["sqlite_journal/full"]["chain"] == [{"cannot": "no dependencies"}]
    assert "| SQLite as the journal: WAL, synchronous=FULL |" in printed.decode()
