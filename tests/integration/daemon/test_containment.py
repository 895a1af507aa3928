"""What a worker does to the machine is contained, and reported with the right code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_agents.core.model import Limits, TaskSpec
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import TaskView
from tests.support.daemon import DaemonProcess

MIB = 1024 * 1024


async def run_one(client: Client, spec: TaskSpec) -> TaskView:
    reply = await client.submit([spec])
    waited = await client.wait(reply.tasks, mode="all", timeout_s=90)
    assert waited.done
    return waited.tasks[0]


async def test_a_memory_bomb_is_out_of_memory_and_the_daemon_goes_on(daemon: DaemonProcess) -> None:
    await daemon.start()
    bomb = "b=[]\nwhile True: b.append(bytearray(1<<20))"
    async with daemon.client() as client:
        view = await run_one(
            client,
            TaskSpec(
                agent="command",
                input={"argv": ["python3", "-c", bomb]},
                limits=Limits(memory_bytes=96 * MIB),
                max_retries=0,
                timeout_s=60,
            ),
        )
        assert view.failure is not None
        assert view.failure.code == "OUT_OF_MEMORY"
        after = await run_one(client, TaskSpec(input={"argv": ["true"]}))
        assert after.state == "succeeded"


async def test_a_fork_bomb_is_contained_and_everything_of_it_dies(daemon: DaemonProcess) -> None:
    await daemon.start()
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    async with daemon.client() as client:
        view = await run_one(
            client,
            TaskSpec(input={"argv": ["python3", "-c", bomb]}, limits=Limits(pids=40), max_retries=0, timeout_s=3),
        )
        assert view.failure is not None
        assert view.failure.code in ("TIMEOUT", "WORKER_DIED")
        after = await run_one(client, TaskSpec(input={"argv": ["sh", "-c", "ls /proc | grep -c '^[0-9]'"]}))
        assert after.state == "succeeded"


async def test_a_private_key_in_the_home_of_the_user_is_not_there_inside(daemon: DaemonProcess, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("the secret")
    daemon.environment["HOME"] = str(home)
    await daemon.start()
    async with daemon.client() as client:
        script = f"cat {home}/.ssh/id_* ~/.ssh/id_* /root/.ssh/id_* /etc/shadow; ls {home}"
        reply = await client.submit([TaskSpec(id="t", input={"argv": ["sh", "-c", script]}, max_retries=0)])
        await client.wait(reply.tasks, mode="all", timeout_s=60)
        result = (await client.result(reply.tasks[0])).result
        assert result.status == "failed"
        assert "the secret" not in str(result.output)
        assert result.output["stdout"] == ""
        assert result.output["stderr"].count("No such file or directory") >= 4


async def test_a_worker_has_no_network_and_no_root(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        script = "id -u; grep -c : /proc/net/dev; grep CapEff /proc/self/status"
        reply = await client.submit([TaskSpec(id="t", input={"argv": ["sh", "-c", script]})])
        await client.wait(reply.tasks, mode="all", timeout_s=60)
        output = (await client.result(reply.tasks[0])).result.output
        uid, devices, capabilities = output["stdout"].split(maxsplit=2)
        assert int(uid) != 0
        assert int(devices) == 1
        assert int(capabilities.split()[-1], 16) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of another owner")
async def test_files_made_in_a_workspace_belong_to_its_owner(daemon: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    os.chown(workspace, 12345, 12345)
    await daemon.start()
    async with daemon.client() as client:
        view = await run_one(client, TaskSpec(input={"argv": ["sh", "-c", "echo hi > made"]}, workspace=str(workspace)))
        assert view.state == "succeeded", view.failure
    assert (workspace / "made").read_text() == "hi\n"
    assert (workspace / "made").stat().st_uid == 12345


async def test_grandchildren_do_not_outlive_their_task(daemon: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    await daemon.start()
    async with daemon.client() as client:
        script = "(setsid sh -c 'echo $$ > pid; exec sleep 1000' >/dev/null 2>&1 &); until [ -s pid ]; do :; done"
        view = await run_one(client, TaskSpec(input={"argv": ["sh", "-c", script]}, workspace=str(workspace)))
        assert view.state == "succeeded", view.failure
    assert daemon.stop() == 0
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _works_in(pid, workspace)]


def _works_in(pid: str, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(directory)
    except OSError:
        return False
