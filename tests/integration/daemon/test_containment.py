"""What a worker does to the machine is contained, and reported with the right code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import pytest

from supervisord_agents.core.model import Limits, TaskSpec
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import TaskView
from tests.support.daemon import DaemonProcess
from tests.support.sandbox import cgroup_file

MIB = 1024 * 1024


async def run_one(client: Client, spec: TaskSpec) -> TaskView:
    reply = await client.submit([spec])
    waited = await client.wait(reply.tasks, mode="all", timeout_s=90)
    assert waited.done
    return waited.tasks[0]


async def test_a_memory_bomb_is_out_of_memory_and_the_daemon_goes_on(running: DaemonProcess) -> None:
    bomb = "b=[]\nwhile True: b.append(bytearray(1<<20))"
    async with running.client() as client:
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


async def test_an_attempt_that_fills_the_disk_is_ended_and_not_tried_again(tmp_path: Path) -> None:
    limited = DaemonProcess(
        tmp_path, '[sandbox]\nprofile = "small"\n[profiles.small]\nextends = "agent"\ndisk_bytes = 40_000_000\n'
    )
    workspace = tmp_path / "work"
    workspace.mkdir()
    write = "dd if=/dev/zero of={} bs=1M count={} 2>&1"
    try:
        await limited.start()
        async with limited.client() as client:
            for name in ("first", "second", "third"):  # of one worker, and each within the limit
                spec = TaskSpec(input={"argv": ["sh", "-c", write.format(name, 25)]}, workspace=str(workspace))
                assert (await run_one(client, spec)).state == "succeeded"
            spec = TaskSpec(input={"argv": ["sh", "-c", write.format("bomb", 4000)]}, workspace=str(workspace), max_retries=3)
            view = await run_one(client, spec)
    finally:
        limited.close()
        shutil.rmtree(workspace)
    assert view.failure is not None
    assert (view.failure.code, view.attempt) == ("DISK_QUOTA", 1)


async def test_a_fork_bomb_is_contained_and_everything_of_it_dies(running: DaemonProcess) -> None:
    name, limit = f"bomb-{os.getpid()}", 40
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    async with running.client() as client:
        spec = TaskSpec(input={"argv": ["python3", "-c", bomb, name]}, limits=Limits(pids=limit), max_retries=0, timeout_s=5)
        reply = await client.submit([spec])
        # It goes off: as many as may be, and with the worker that started it no more.
        while len(running := of_this_host(name)) < limit - 5:
            assert not (await client.wait(reply.tasks, mode="all", timeout_s=0.05)).done, "it ended before it went off"
        with contextlib.suppress(FileNotFoundError):  # that one has just ended
            assert cgroup_file(running[0], "pids", "pids.max", "pids.max") == str(limit)
            assert int(cgroup_file(running[0], "pids", "pids.current", "pids.current")) <= limit
        assert len(of_this_host(name)) <= limit
        waited = await client.wait(reply.tasks, mode="all", timeout_s=90)
        failure = waited.tasks[0].failure
        assert failure is not None
        assert failure.code in ("TIMEOUT", "WORKER_DIED")
        # While the daemon lives on, which would otherwise end them with itself.
        await gone(name)
        after = await run_one(client, TaskSpec(input={"argv": ["true"]}))
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


async def test_a_worker_has_no_network_and_no_root(running: DaemonProcess) -> None:
    async with running.client() as client:
        script = "id -u; grep -c : /proc/net/dev; grep CapEff /proc/self/status"
        reply = await client.submit([TaskSpec(id="t", input={"argv": ["sh", "-c", script]})])
        await client.wait(reply.tasks, mode="all", timeout_s=60)
        output = (await client.result(reply.tasks[0])).result.output
        uid, devices, capabilities = output["stdout"].split(maxsplit=2)
        assert int(uid) != 0
        assert int(devices) == 1
        assert int(capabilities.split()[-1], 16) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of another owner")
async def test_files_made_in_a_workspace_belong_to_its_owner(running: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    os.chown(workspace, 12345, 12345)
    async with running.client() as client:
        view = await run_one(client, TaskSpec(input={"argv": ["sh", "-c", "echo hi > made"]}, workspace=str(workspace)))
        assert view.state == "succeeded", view.failure
    assert (workspace / "made").read_text() == "hi\n"
    assert (workspace / "made").stat().st_uid == 12345


async def test_grandchildren_do_not_outlive_their_task(running: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    name = f"1000{os.getpid()}"  # seconds to sleep, and a name to be found by
    async with running.client() as client:
        script = f"(setsid sh -c 'echo $$ > pid; exec sleep {name}' >/dev/null 2>&1 &); until [ -e end ]; do sleep 0.05; done"
        reply = await client.submit([TaskSpec(input={"argv": ["sh", "-c", script]}, workspace=str(workspace))])
        while not of_this_host(f"sleep {name}"):
            assert not (await client.wait(reply.tasks, mode="all", timeout_s=0.05)).done, "it ended before its grandchild ran"
        (workspace / "end").touch()
        waited = await client.wait(reply.tasks, mode="all", timeout_s=60)
        assert waited.tasks[0].state == "succeeded", waited.tasks[0].failure
        # The daemon and the worker, which waits for its next task, live on.
        await gone(f"sleep {name}")
        assert (await run_one(client, TaskSpec(input={"argv": ["true"]}))).state == "succeeded"


def of_this_host(words: str) -> list[int]:
    """Processes of the whole host, those in sandboxes among them, whose command line ends with the words; zombies have none."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip().endswith(words):
                found.append(int(pid))
    return found


async def gone(words: str) -> None:
    """Wait until no process of the host has these words; the test's own limit of time ends it otherwise."""
    while of_this_host(words):
        await asyncio.sleep(0.01)


async def test_a_command_finds_nothing_of_the_one_before_in_the_same_worker(daemon: DaemonProcess) -> None:
    daemon.config.write_text("[pools.standard]\nmin_workers = 1\nmax_workers = 1\n")
    await daemon.start()
    leave = "echo x >/tmp/left; echo x >$HOME/left; echo x >/dev/shm/left; echo x >left; setsid sleep 7030 >/dev/null 2>&1 &"
    look = "ls -A /tmp /dev/shm $HOME .; echo processes; cat /proc/[0-9]*/comm; ulimit -q"
    async with daemon.client() as client:
        first = await run_one(client, TaskSpec(input={"argv": ["sh", "-c", leave]}))
        second = await run_one(client, TaskSpec(input={"argv": ["bash", "-c", look]}))
        assert (first.state, second.state) == ("succeeded", "succeeded")
        assert first.worker == second.worker
        output = (await client.result(second.id)).result.output
    assert isinstance(output, dict)
    listed, _, rest = output["stdout"].partition("processes\n")
    assert "left" not in listed
    assert sorted(set(rest.split()) - {"cat"}) == [
        "0",
        "bash",
        "python",
    ]  # no message queues, and none but the worker's processes
