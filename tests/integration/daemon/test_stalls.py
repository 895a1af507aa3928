"""Attempts that are stopped because they stand still or take too long: their whole tree ends, and what they had said is kept."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from supervisord_agents.core.model import Result, State, TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], start_new_session=True)
print("so far", flush=True)
time.sleep(600)
"""


def alive(mark: str) -> list[str]:
    """The processes of this machine that were given the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            pass  # it has ended
    return found


async def partial(client: Client, task: str) -> Result:
    async with asyncio.timeout(60):
        while not (result := (await client.result(task)).result).partial:
            await asyncio.sleep(0.01)
    return result


async def test_the_whole_tree_of_a_stopped_attempt_ends_and_its_output_is_kept(daemon: DaemonProcess) -> None:
    daemon.config.write_text("[tasks]\nstall_s = 0.5\nstalls_s = { patient = 0.0 }\n")
    mark = f"mark-{os.getpid()}-{daemon.state}"
    given = {"argv": ["python3", "-c", STUBBORN, mark]}
    await daemon.start()
    async with daemon.client() as client:
        still = TaskSpec(id="still", input=given, max_retries=0)
        late = TaskSpec(id="late", type="patient", timeout_s=1.0, input=given, max_retries=0)
        tasks = (await client.submit([still, late])).tasks
        views = (await client.wait(tasks, timeout_s=60)).tasks
        assert [(view.state, view.failure and view.failure.code) for view in views] == [
            (State.FAILED, "STALLED"),
            (State.FAILED, "TIMEOUT"),
        ]
        for task in tasks:
            result = await partial(client, task)
            assert isinstance(result.output, dict)
            assert result.output["stdout"] == "so far\n"
        assert not alive(mark)
