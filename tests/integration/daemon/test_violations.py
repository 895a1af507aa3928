"""What a supervised worker tries in vain is told: in the log of its task, on the stream, and over a restart of the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.wire.messages import Violation
from tests.support.daemon import DaemonProcess

SUPERVISED = '[sandbox]\nprofile = "mine"\n[profiles.mine]\nextends = "agent"\nsupervise = "{}"\n'
TRIES = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in range(int(sys.argv[1])):
    libc.ptrace(16, 1, 0, 0)
try:
    open("/etc/shadow")
except OSError:
    pass
print(ctypes.get_errno())
"""
WAITS = """
import ctypes, os, time
open("begun", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
ctypes.CDLL(None).mount(b"none", b"/mnt", b"tmpfs", 0, None)
"""


def tries(times: int, name: str = "t") -> TaskSpec:
    return TaskSpec(id=name, input={"argv": ["/usr/bin/env", "python3", "-c", TRIES, str(times)]}, max_retries=0)


async def told(daemon: DaemonProcess, task: str) -> list[str]:
    """The supervisor's lines of a log."""
    shown = await asyncio.to_thread(daemon.agentctl, "logs", task)
    assert shown.returncode == 0, shown.stderr
    return [line for line in shown.stdout.splitlines() if "[supervisor] the sandbox" in line or "[supervisor] …" in line]


async def test_each_attempt_is_a_line_of_the_log_and_an_item_of_the_stream(daemon: DaemonProcess) -> None:
    daemon.config.write_text(SUPERVISED.format("files"))
    await daemon.start()
    async with daemon.client() as client:
        (before,) = (await client.submit([tries(0, "before")])).tasks
        await client.wait([before], mode="all", timeout_s=60)
        items = client.subscribe(after="0.0")
        await anext(items)  # it is heard from now on
        (task,) = (await client.submit([tries(1)])).tasks
        seen = [item async for item in _until_the_end(items, task) if item.kind == "violation" and item.task == task]
        assert (await client.result(task)).result.output["stdout"] == "1\n"
    lines = await told(daemon, task)
    assert len(lines) == 2
    assert "the sandbox refused ptrace(request 16, pid 1) by pid " in lines[0]
    assert lines[0].endswith(" (python3): EPERM")
    assert 'the sandbox hid "/etc/shadow": openat by pid ' in lines[1]
    assert [item.message for item in seen] == [line.partition("[supervisor] ")[2] for line in lines]
    assert seen[0].attempt == 1
    assert seen[0].violation == Violation("ptrace", "", seen[0].violation.pid, "python3", "EPERM")


async def _until_the_end(items, task):  # type: ignore[no-untyped-def]
    async for item in items:
        yield item
        if item.task == task and item.state is State.SUCCEEDED:
            return


async def test_each_task_of_a_worker_gets_its_own_and_a_flood_is_bounded(daemon: DaemonProcess) -> None:
    daemon.config.write_text(SUPERVISED.format("refused"))
    await daemon.start()
    async with daemon.client() as client:
        for name, times in (("a", 3), ("b", 2000), ("c", 0)):
            (task,) = (await client.submit([tries(times, name)])).tasks
            await client.wait([task], mode="all", timeout_s=60)
            lines = await told(daemon, task)
            assert sum("refused ptrace" in line and "…" not in line for line in lines) == min(times, 10)
            assert any("[supervisor] … and " in line for line in lines) == (times > 10)


async def test_nothing_is_told_unless_it_is_asked_for(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        (task,) = (await client.submit([tries(1)])).tasks
        await client.wait([task], mode="all", timeout_s=60)
    assert await told(daemon, task) == []


async def test_a_new_daemon_hears_the_workers_that_it_takes_over(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.config.write_text(SUPERVISED.format("refused"))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    await daemon.start()
    async with daemon.client() as client:
        spec = TaskSpec(id="t", input={"argv": ["python3", "-c", WAITS]}, workspace=str(workspace))
        (task,) = (await client.submit([spec])).tasks
        async with asyncio.timeout(60):
            while not (workspace / "begun").exists():
                await asyncio.sleep(0.01)
    daemon.kill()
    (workspace / "go").touch()
    await daemon.start()
    async with daemon.client() as client:
        assert (await client.wait([task], mode="all", timeout_s=60)).tasks[0].state is State.SUCCEEDED
    (line,) = await told(daemon, task)
    assert 'the sandbox refused mount("/mnt") by pid ' in line
