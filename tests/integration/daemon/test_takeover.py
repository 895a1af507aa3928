"""Running work outlives the daemon: a new one goes on with it, whether the old one was killed or restarted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from tests.support.daemon import DaemonProcess

LINES = 4000
COUNTER = f"""
import os, sys, time
open("begun." + os.environ["RUN"], "w").close()
open("runs", "a").write("x")
for number in range({LINES}):
    print(number, flush=True)
    if number % 40 == 0:
        time.sleep(0.01)
while not os.path.exists("go"):
    time.sleep(0.01)
print("end")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


def counter(workspace: Path, run: str = "1") -> TaskSpec:
    given = {"argv": ["python3", "-c", COUNTER], "env": {"RUN": run}}
    return TaskSpec(id="count", input=given, workspace=str(workspace))


async def appears(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.005)


def replaced(daemon: DaemonProcess, how: str) -> None:
    """The daemon is gone, its workers are not."""
    assert daemon.process is not None
    if how == "kill":
        daemon.kill()
    else:
        daemon.process.send_signal(signal.SIGUSR1)
        assert daemon.process.wait(30) == 0


@pytest.mark.parametrize("how", ["kill", "restart"])
async def test_an_attempt_goes_on_and_its_log_has_no_gap(daemon: DaemonProcess, workspace: Path, how: str) -> None:
    await daemon.start()
    async with daemon.client() as client:
        (task,) = (await client.submit([counter(workspace)])).tasks
        await appears(workspace / "begun.1")
    for _ in range(5):
        await asyncio.sleep(0.05)
        replaced(daemon, how)
        await daemon.start()
    (workspace / "go").touch()
    async with daemon.client() as client:
        view = (await client.wait([task], mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.SUCCEEDED, 1)
        status = await client.status()
        assert (status.recovery.resumed, status.recovery.requeued) == (1, 0)
    log = (daemon.state / "logs" / f"task_{task}.log").read_text().splitlines()
    said = [line for line in log if not line.startswith("[supervisor]")]
    assert said == [*map(str, range(LINES)), "end"]
    assert (workspace / "runs").read_text() == "x"
