"""kill -9 of the daemon, at any moment, under load: nothing acknowledged is lost, nothing runs to completion twice."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import SupervisorError
from tests.support.daemon import DaemonProcess

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "200"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
MARK = '''
import os

def mark(context):
    """One line for every completed run."""
    descriptor = os.open(os.path.join(context.workspace, "done.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{context.task_id}\\n".encode())
    os.close(descriptor)
    return context.attempt
'''
CONFIG = """
[pools.standard]
min_workers = 2
max_workers = 2
[tasks]
backoff_s = 0.01
[journal]
segment_bytes = 1048576
snapshot_every_records = 150
"""


class Load:
    """A client that submits small graphs without pause, and knows what was acknowledged."""

    def __init__(self, daemon: DaemonProcess, workspace: Path) -> None:
        self._daemon = daemon
        self._workspace = workspace
        self._number = 0
        self.acknowledged: list[str] = []

    def _graph(self) -> list[TaskSpec]:
        def task(id: str, *after: str) -> TaskSpec:
            return TaskSpec(
                id=id,
                agent="python",
                input={"function": "marker:mark"},
                workspace=str(self._workspace),
                dependencies=after,
                max_retries=0,
            )

        return [task("A"), task("B", "A"), task("C", "A"), task("D", "B", "C")]

    async def run(self) -> None:
        """Until the daemon is gone. A submit whose answer was lost is sent again in the next round, with the same key."""
        async with self._daemon.client() as client:
            while True:
                reply = await client.submit(self._graph(), key=f"graph-{self._number}")
                self._number += 1
                self.acknowledged += reply.tasks
                await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_two_hundred_crashes_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "marker.py").write_text(MARK)
    daemon = DaemonProcess(tmp_path, CONFIG)
    load = Load(daemon, workspace)
    try:
        for _ in range(ROUNDS):
            await daemon.start()
            submitting = asyncio.create_task(load.run())
            await asyncio.sleep(dice.uniform(0.0, 0.5))
            daemon.kill()
            with pytest.raises((SupervisorError, OSError)):
                await submitting
        await daemon.start()
        await _judge(daemon, load, workspace)
    finally:
        daemon.close()


async def _judge(daemon: DaemonProcess, load: Load, workspace: Path) -> None:
    async with daemon.client() as client:
        assert load.acknowledged, "no submit was ever acknowledged"
        for start in range(0, len(load.acknowledged), 200):
            waited = await client.wait(load.acknowledged[start : start + 200], mode="all", timeout_s=300)
            assert waited.done
            assert {view.state for view in waited.tasks} == {State.SUCCEEDED}
        known = [view.id for view in (await client.list(limit=1)).tasks]
        assert known
    runs = Counter((workspace / "done.log").read_text().split())
    missing = set(load.acknowledged) - set(runs)
    assert not missing, f"acknowledged, reported done, and never run: {missing}"
    twice = {task: count for task, count in runs.items() if count > 1}
    assert not twice, f"run to completion more than once: {twice}"
