"""SIGSTOP: a daemon that was stopped for a while harms nobody when it goes on; a worker that is stopped is found and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import SupervisorError
from tests.support.crashes import CONFIG, MODULE, Load
from tests.support.hasty_daemon import HEARTBEAT_S, MISSED_HEARTBEATS, HastyDaemon

STOPPED_S = (MISSED_HEARTBEATS + 1) * HEARTBEAT_S
"""Longer than a worker may be silent."""
SLOW = """
import os, time
import marker

def slow(context, seconds):
    open(os.path.join(context.workspace, "begun"), "w").close()
    time.sleep(seconds)
    return marker.mark(context)

def held(context):
    name = os.path.join(context.workspace, "begun")
    if os.path.exists(name):
        return marker.mark(context)
    open(name, "w").close()
    time.sleep(1000)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[HastyDaemon]:
    process = HastyDaemon(tmp_path)
    yield process
    process.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    (path / "marker.py").write_text(MODULE)
    (path / "slow.py").write_text(SLOW)
    return path


def python(workspace: Path, function: str, *, timeout_s: float = 0.0, **kwargs: object) -> TaskSpec:
    given = {"function": f"slow:{function}", "kwargs": kwargs}
    return TaskSpec(agent="python", input=given, workspace=str(workspace), timeout_s=timeout_s, backoff_s=0.01)


async def until_there(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.02)


async def test_a_stopped_daemon_goes_on_as_if_nothing_had_been(tmp_path: Path, workspace: Path) -> None:
    daemon = HastyDaemon(tmp_path, CONFIG)
    load = Load(daemon, workspace)
    try:
        await daemon.start()
        async with daemon.client() as client:
            # It ends in time, while nobody is there to notice.
            slow = (await client.submit([python(workspace, "slow", seconds=2, timeout_s=STOPPED_S - 1)])).tasks[0]
            await until_there(workspace / "begun")
            connected = asyncio.Event()
            submitting = asyncio.create_task(load.run(connected))
            while not load.acknowledged:
                await asyncio.sleep(0.01)
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            before = len(load.acknowledged)
            daemon.process.send_signal(signal.SIGCONT)
            while len(load.acknowledged) < before + 20:
                await asyncio.sleep(0.01)
            submitting.cancel()
            outcome = (await asyncio.gather(submitting, return_exceptions=True))[0]
            assert isinstance(outcome, asyncio.CancelledError | SupervisorError)
            tasks = [slow, *load.acknowledged]
            waited = await client.wait(tasks, timeout_s=100)
            assert waited.done
    finally:
        daemon.close()
    views = {view.id: view for view in waited.tasks}
    assert (views[slow].state, views[slow].attempt) == (State.SUCCEEDED, 1)
    wrong = [
        view
        for view in views.values()
        if view.state is not State.SUCCEEDED and not (view.state is State.CANCELLED and view.graph in load.cancelled)
    ]
    assert not wrong
    assert {view.attempt for view in views.values() if not view.id.endswith(".E")} <= {0, 1}
    assert set(Counter((workspace / "done.log").read_text().split()).values()) == {1}
    assert "worker_given_up" not in daemon.log_text()


async def test_a_stopped_worker_is_found_by_its_silence(daemon: HastyDaemon, workspace: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        task = (await client.submit([python(workspace, "held")])).tasks[0]
        await until_there(workspace / "begun")
        assert daemon.process is not None
        stopped = [process.pid for process in _runtimes(daemon.process.pid)]
        assert stopped
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        ended = (await client.wait([task], timeout_s=100)).tasks[0]
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
        async with asyncio.timeout(60):
            while any(map(psutil.pid_exists, stopped)):
                await asyncio.sleep(0.05)
    assert "sent no heartbeat" in daemon.log_text()
    assert Counter((workspace / "done.log").read_text().split()) == {task: 1}


def _runtimes(daemon: int) -> list[psutil.Process]:
    """The first process of each worker, which speaks for it."""
    found = psutil.Process(daemon).children(recursive=True)
    return [process for process in found if "supervisord_agents.workers.runtime" in " ".join(process.cmdline())]
