"""kill -9 of the daemon, at any moment, under load: nothing acknowledged is lost, nothing runs to completion twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import SupervisorError
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import TaskView
from tests.support.daemon import DaemonProcess

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "200"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
ROUND_S = 0.4
WAIT_S = 300
MODULE = '''
import os

LARGE = "x" * 100_000

def mark(context, large=False):
    """One line for every completed run."""
    for name, dependency in context.dependencies.items():
        assert isinstance(dependency.output, int) or dependency.output == LARGE, (name, dependency)
    descriptor = os.open(os.path.join(context.workspace, "done.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{context.task_id}\\n".encode())
    os.close(descriptor)
    return LARGE if large else context.attempt

def flaky(context):
    if context.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return mark(context)
'''
CONFIG = """
[daemon]
orphan_grace_s = 10.0
[pools.standard]
min_workers = 2
max_workers = 2
[tasks]
backoff_s = 0.01
keep_ended = 30
[journal]
segment_bytes = 1048576
snapshot_every_records = 150
"""


class Load:
    """A client that submits small graphs without pause, cancels some, and knows what was acknowledged."""

    def __init__(self, daemon: DaemonProcess, workspace: Path) -> None:
        self._daemon = daemon
        self._workspace = workspace
        self._number = 0
        self.acknowledged: list[str] = []
        self.cancelled: set[str] = set()
        """Graphs whose cancellation was asked for; what was asked last may have been done without an answer."""

    def _graph(self) -> list[TaskSpec]:
        def task(id: str, *after: str, function: str = "mark", retries: int = 0, **kwargs: object) -> TaskSpec:
            return TaskSpec(
                id=id,
                agent="python",
                input={"function": f"marker:{function}", "kwargs": kwargs},
                workspace=str(self._workspace),
                dependencies=after,
                max_retries=retries,
            )

        large = self._number % 3 == 0
        tasks = [task("A", large=large), task("B", "A"), task("C", "A"), task("D", "B", "C")]
        return [*tasks, task("E", function="flaky", retries=3)] if self._number % 5 == 0 else tasks

    async def run(self, connected: asyncio.Event) -> None:
        """Until the daemon is gone. A submit whose answer was lost is sent again in the next round, with the same key."""
        async with self._daemon.client() as client:
            connected.set()
            while True:
                reply = await client.submit(self._graph(), key=f"graph-{self._number}")
                self._number += 1
                self.acknowledged += reply.tasks
                if self._number % 7 == 0:
                    self.cancelled.add(reply.graph)
                    await client.cancel(reply.graph)
                await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_two_hundred_crashes_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "marker.py").write_text(MODULE)
    daemon = DaemonProcess(tmp_path, CONFIG)
    load = Load(daemon, workspace)
    try:
        for number in range(ROUNDS):
            await _round(daemon, load, dice, until_one_ends=number % 4 == 0)
        await daemon.start()
        async with daemon.client() as client:
            views = await _all_ended(client, load)
            _judge_states(views, load)
            await _judge_results(client, views, daemon)
        _judge_runs(views, workspace)
    finally:
        daemon.close()


async def _round(daemon: DaemonProcess, load: Load, dice: random.Random, *, until_one_ends: bool) -> None:
    """One life of the daemon. Some see a task end first: on a slow machine none would, and what never runs proves little."""
    await daemon.start()
    connected = asyncio.Event()
    submitting = asyncio.create_task(load.run(connected))
    await connected.wait()
    if until_one_ends:
        async with daemon.client() as client:
            await _an_end(client)
    await asyncio.sleep(dice.uniform(0.0, ROUND_S))
    daemon.kill()
    with pytest.raises((SupervisorError, OSError)):
        await submitting


async def _an_end(client: Client) -> None:
    async with contextlib.aclosing(client.subscribe()) as items:
        async for item in items:
            if item.state is State.SUCCEEDED:
                return


async def _all_ended(client: Client, load: Load) -> dict[str, TaskView]:
    assert load.acknowledged, "no submit was ever acknowledged"
    views: dict[str, TaskView] = {}
    for some in _in_parts(load.acknowledged, 200):
        waited = await client.wait(some, mode="all", timeout_s=WAIT_S)
        assert waited.done
        views |= {view.id: view for view in waited.tasks}
    assert set(views) == set(load.acknowledged)
    listed = await _listed(client)
    assert len(listed) == len(set(listed)), "listed twice"
    assert set(listed) >= set(views), "not listed"
    assert (await client.status()).archived, "nothing was archived"
    return views


async def _listed(client: Client) -> list[str]:
    names, after = [], ""
    while True:
        reply = await client.list(limit=100, after=after)
        names += [task.id for task in reply.tasks]
        after = reply.next
        if not after:
            return names


def _in_parts(items: list[str], size: int) -> Iterator[list[str]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))


def _judge_states(views: dict[str, TaskView], load: Load) -> None:
    bad = {
        view.id: (view.state, view.failure)
        for view in views.values()
        if view.state is not State.SUCCEEDED and not (view.graph in load.cancelled and view.state is State.CANCELLED)
    }
    assert not bad


async def _judge_results(client: Client, views: dict[str, TaskView], daemon: DaemonProcess) -> None:
    """What `result` says, and the file of a task that ran, agree with the state."""
    for view in views.values():
        result = (await client.result(view.id)).result
        assert (result.status, result.attempt) == (view.state, view.attempt)
        assert result.error is None or view.state is not State.SUCCEEDED, result
        path = daemon.state / "results" / f"task_{view.id}.json"
        if view.attempt:
            written = json.loads(path.read_bytes())
            assert (written["status"], written["attempt"]) == (view.state, view.attempt)
        if view.state is State.SUCCEEDED:
            assert result.output == view.attempt or len(result.output) == 100_000


def _judge_runs(views: dict[str, TaskView], workspace: Path) -> None:
    runs = Counter((workspace / "done.log").read_text().split())
    missing = {view.id for view in views.values() if view.state is State.SUCCEEDED} - set(runs)
    assert not missing, f"acknowledged, reported done, and never run: {missing}"
    twice = {task: count for task, count in runs.items() if count > 1}
    assert not twice, f"run to completion more than once: {twice}"
