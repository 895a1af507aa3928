"""Running work outlives the daemon: a new one goes on with it, whether the old one was killed or restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from sandbox import rendezvous
from supervisord_agents.core.model import Limits, State, TaskSpec
from supervisord_agents.daemon.fork_server import cgroup_name
from tests.support.daemon import DaemonProcess
from tests.support.gateway import KEY, KEY_ENV
from tests.support.scripted_model import INPUT_TOKENS, OUTPUT_TOKENS, ScriptedModel

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
HOG = """
import os, time
open("begun", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
hoard = []
while True:
    hoard.append(bytearray(1 << 20))
"""
TWO_CALLS = """
import json, os, time, urllib.request
def ask():
    url = os.environ["HTTP_PROXY"] + "/openai/chat/completions"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "SAY:hello"}]}).encode()
    urllib.request.urlopen(urllib.request.Request(url, body)).read()
ask()
open("asked", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
ask()
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
    for _ in range(3):
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


NAMES = """
import os, socket, time
def known(name):
    try:
        return bool(socket.gethostbyname(name))
    except OSError:
        return False
print("before", known("a.example.org"), known("b.example.org"), flush=True)
open("begun", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
print("after", known("a.example.org"), known("b.example.org"), flush=True)
"""


async def test_a_host_that_is_no_longer_configured_is_out_of_reach_of_running_work_too(
    daemon: DaemonProcess, workspace: Path
) -> None:
    daemon.config.write_text('[gateway]\nallowed_hosts = ["a.example.org", "b.example.org"]\n')
    await daemon.start()
    async with daemon.client() as client:
        spec = TaskSpec(id="names", input={"argv": ["python3", "-c", NAMES]}, workspace=str(workspace))
        (task,) = (await client.submit([spec])).tasks
        await appears(workspace / "begun")
    replaced(daemon, "kill")
    daemon.config.write_text('[gateway]\nallowed_hosts = ["b.example.org", "c.example.org"]\n')
    await daemon.start()
    (workspace / "go").touch()
    async with daemon.client() as client:
        view = (await client.wait([task], mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.SUCCEEDED, 1)
        result = (await client.result(task)).result
    assert isinstance(result.output, dict)
    assert result.output["stdout"].splitlines() == ["before True True", "after False True"]


FUNCTION = """
import os, time

def work(context):
    open("begun." + context.task_id, "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    with open("runs", "a") as file:
        file.write(context.task_id + "\\n")
    return {"task": context.task_id}
"""


def function(workspace: Path, id: str, *after: str) -> TaskSpec:
    (workspace / "work.py").write_text(FUNCTION)
    return TaskSpec(id=id, agent="python", input={"function": "work:work"}, workspace=str(workspace), dependencies=after)


async def test_what_ends_while_there_is_no_daemon_is_recorded_once(daemon: DaemonProcess, workspace: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        tasks = (await client.submit([function(workspace, "one"), function(workspace, "two", "one")])).tasks
        await appears(workspace / f"begun.{tasks[0]}")
    daemon.kill()
    (workspace / "go").touch()
    async with asyncio.timeout(60):
        while not any(path.stat().st_size for path in (daemon.state / "workers").glob("*/outbox")):
            await asyncio.sleep(0.01)
    await daemon.start()
    async with daemon.client() as client:
        waited = await client.wait(tasks, mode="all", timeout_s=60)
        assert [(view.state, view.attempt) for view in waited.tasks] == [(State.SUCCEEDED, 1)] * 2
        assert (await client.result(tasks[0])).result.output == {"task": tasks[0]}
    assert (workspace / "runs").read_text().split() == tasks


async def test_a_worker_that_dies_while_there_is_no_daemon_is_told_with_its_cause(daemon: DaemonProcess, workspace: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        spec = TaskSpec(
            input={"argv": ["python3", "-c", HOG]},
            workspace=str(workspace),
            limits=Limits(memory_bytes=96 << 20),
            max_retries=0,
        )
        tasks = (await client.submit([spec])).tasks
        await appears(workspace / "begun")
    daemon.kill()
    before = in_cgroups(daemon)
    (workspace / "go").touch()
    async with asyncio.timeout(60):
        while len(in_cgroups(daemon)) == len(before):
            await asyncio.sleep(0.01)
    await daemon.start()
    async with daemon.client() as client:
        view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.FAILED, 1)
        assert view.failure is not None
        assert view.failure.code == "OUT_OF_MEMORY"


def in_cgroups(daemon: DaemonProcess) -> list[int]:
    """The processes in sandboxes of this daemon, whoever runs it now."""
    name = f"/{cgroup_name(daemon.state)}/"
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if name in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(pid)
    return found


def running(*argv: str) -> bool:
    return any(process.info["cmdline"] == list(argv) for process in psutil.process_iter(["cmdline"]))


def somebody_waits_at_the_door(daemon: DaemonProcess) -> bool:
    client = rendezvous.connect(daemon.state / "spawner.sock")
    if client is not None:
        client.close()
    return client is not None


async def test_without_a_daemon_workers_end_when_the_grace_is_over(tmp_path: Path, workspace: Path) -> None:
    daemon = DaemonProcess(tmp_path, "[daemon]\norphan_grace_s = 0.2\n")
    try:
        await daemon.start()
        async with daemon.client() as client:
            tasks = (await client.submit([function(workspace, "one")])).tasks
            await appears(workspace / f"begun.{tasks[0]}")
        daemon.kill()
        async with asyncio.timeout(60):
            while somebody_waits_at_the_door(daemon):
                await asyncio.sleep(0.5)  # longer than the grace, which each look begins anew
        assert not in_cgroups(daemon)
        (workspace / "go").touch()
        await daemon.start()
        async with daemon.client() as client:
            view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
            assert (view.state, view.attempt) == (State.SUCCEEDED, 2)
            status = await client.status()
            assert (status.recovery.resumed, status.recovery.requeued) == (0, 1)
    finally:
        daemon.close()
    assert (workspace / "runs").read_text().split() == tasks


async def test_a_start_that_fails_costs_no_running_work(daemon: DaemonProcess, workspace: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        tasks = (await client.submit([function(workspace, "one")])).tasks
        await appears(workspace / f"begun.{tasks[0]}")
    daemon.kill()
    # Of all that a start needs, its socket comes last.
    daemon.socket.unlink()
    daemon.socket.mkdir()
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    assert "resumed=1" in daemon.log_text()
    daemon.socket.rmdir()
    (workspace / "go").touch()
    await daemon.start()
    async with daemon.client() as client:
        view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.SUCCEEDED, 1)


async def test_an_attempt_that_went_on_can_be_cancelled_and_its_helpers_end_with_it(
    daemon: DaemonProcess, workspace: Path
) -> None:
    await daemon.start()
    script = "setsid sleep 7020 & touch begun; exec sleep 7021"
    async with daemon.client() as client:
        spec = TaskSpec(input={"argv": ["sh", "-c", script]}, workspace=str(workspace))
        tasks = (await client.submit([spec])).tasks
        await appears(workspace / "begun")
    daemon.kill()
    await daemon.start()
    async with daemon.client() as client:
        await client.cancel(tasks[0])
        view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
        assert view.state == State.CANCELLED
        async with asyncio.timeout(60):
            while running("sleep", "7020") or running("sleep", "7021"):
                await asyncio.sleep(0.01)


async def test_a_stop_that_is_no_restart_ends_what_runs_and_a_later_daemon_runs_it_again(
    daemon: DaemonProcess, workspace: Path
) -> None:
    await daemon.start()
    async with daemon.client() as client:
        tasks = (await client.submit([function(workspace, "one")])).tasks
        await appears(workspace / f"begun.{tasks[0]}")
    assert daemon.stop() == 0
    assert not in_cgroups(daemon)
    (workspace / "go").touch()
    await daemon.start()
    async with daemon.client() as client:
        view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.SUCCEEDED, 2)


async def test_another_daemon_s_workers_are_left_alone(daemon: DaemonProcess, tmp_path: Path, workspace: Path) -> None:
    """Two daemons of one user, beside each other: one crashes, comes back, and is stopped for good."""
    (tmp_path / "other").mkdir()
    other = DaemonProcess(tmp_path / "other")
    try:
        await asyncio.gather(daemon.start(), other.start())
        async with other.client() as client:
            tasks = (await client.submit([function(workspace, "others")])).tasks
            await appears(workspace / f"begun.{tasks[0]}")
        daemon.kill()
        await daemon.start()
        assert daemon.stop() == 0
        (workspace / "go").touch()
        async with other.client() as client:
            view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
            assert (view.state, view.attempt) == (State.SUCCEEDED, 1)
    finally:
        other.close()


async def test_what_the_gateway_counted_before_a_crash_is_on_the_bill(daemon: DaemonProcess, workspace: Path) -> None:
    daemon.environment[KEY_ENV] = KEY
    async with ScriptedModel().serve() as url:
        daemon.config.write_text(f'[gateway.providers.openai]\nbase_url = "{url}/v1"\napi_key_env = "{KEY_ENV}"\n')
        await daemon.start()
        async with daemon.client() as client:
            tasks = (
                await client.submit([TaskSpec(input={"argv": ["python3", "-c", TWO_CALLS]}, workspace=str(workspace))])
            ).tasks
            await appears(workspace / "asked")
        daemon.kill()
        await daemon.start()
        (workspace / "go").touch()
        async with daemon.client() as client:
            view = (await client.wait(tasks, mode="all", timeout_s=60)).tasks[0]
            assert (view.state, view.attempt) == (State.SUCCEEDED, 1)
            result = (await client.result(tasks[0])).result
    assert result.tokens_used == 2 * (INPUT_TOKENS + OUTPUT_TOKENS)
    assert os.listdir(daemon.state / "meters") == []
