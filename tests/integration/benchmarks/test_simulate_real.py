"""The first two scenarios of `make simulate`, once with sandboxed workers: what runs beside what, not how fast."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.simulate.real import CONFIG, WORKERS, ran
from benchmarks.simulate.scenarios import chain_graph, fan_graph, most_at_once
from tests.support.daemon import DaemonProcess

TOGETHER = "touch $0; until [ -e B1 ] && [ -e B2 ] && [ -e B3 ] && [ -e B4 ]; do sleep 0.01; done"
"""Ends when all four have begun: were they not to run at the same time, none ever would."""


@pytest.fixture
def daemon(tmp_path: Path) -> DaemonProcess:
    return DaemonProcess(tmp_path, CONFIG.format(workers=WORKERS))


async def test_a_chain_runs_one_by_one_and_a_fan_all_at_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    try:
        await daemon.start()
        async with daemon.client() as client:
            runs = await ran(client, chain_graph(), 0.05)
            assert "".join(run.task for run in runs) == "ABCD"
            assert most_at_once(runs) == 1
            graph = [
                msgspec.structs.replace(
                    spec, input={"argv": ["sh", "-c", TOGETHER, spec.id]}, workspace=str(shared), timeout_s=60.0
                )
                if spec.id.startswith("B")
                else spec
                for spec in fan_graph(WORKERS)
            ]
            runs = await ran(client, graph, 0.05)
            assert (runs[0].task, runs[-1].task) == ("A", "C")
            assert most_at_once(runs) == WORKERS
    finally:
        daemon.close()
