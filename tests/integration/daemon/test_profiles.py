"""Which profile a task of a real daemon runs under, and what that grants it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.core.model import Result, TaskSpec
from supervisord_agents.errors import SupervisorError
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import TaskView
from tests.support.daemon import DaemonProcess

CONFIG = """
[sandbox]
profile = "usual"
task_profiles = ["strict", "other"]
[agents.python]
profile = "of-python"
[profiles.usual]
extends = "agent"
pids = 40
env = {{ WHO = "usual" }}
pass_env = ["PASSED", "TERM"]
masked = ["{secret}"]
[profiles.other]
extends = "usual"
env = {{ WHO = "other" }}
wall_s = 30
[profiles.of-python]
env = {{ WHO = "of-python" }}
deny_syscalls = ["network"]
[pools.standard]
min_workers = 0
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("workspace") / "work"
    subprocess.run(["git", "init", "-q", str(made)], check=True)
    (made / "secret").write_text("secret")
    (made / ".envrc").write_text("mine")
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, workspace: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("daemon"), CONFIG.format(secret=workspace / "secret"))
    process.environment |= {"PASSED": "on", "NOT_PASSED": "on", "TERM": "of-a-person"}
    with process.running():
        yield process


def command(script: str, **fields: Any) -> TaskSpec:
    return TaskSpec(input={"argv": ["sh", "-c", script]}, **{"max_retries": 0, **fields})


async def run(client: Client, spec: TaskSpec) -> tuple[TaskView, Result]:
    reply = await client.submit([spec])
    waited = await client.wait(reply.tasks, mode="all", timeout_s=90)
    return waited.tasks[0], (await client.result(reply.tasks[0])).result


async def test_everybodys_an_agents_and_a_tasks_profile(running: DaemonProcess, workspace: Path) -> None:
    async with running.client() as client:
        said = "echo $WHO $PASSED $NOT_PASSED $TERM"
        assert (await run(client, command(said)))[1].output["stdout"] == "usual on\n"
        assert (await run(client, command(said, profile="other")))[1].output["stdout"] == "other on\n"
        assert (await run(client, command(said, profile="strict")))[1].output["stdout"] == "\n"
        probe = "import os, socket\ntry: socket.socket()\nexcept PermissionError: print(os.environ['WHO'])"
        spec = TaskSpec(
            agent="python", input={"function": "subprocess:getoutput", "args": [f'python3 -c "{probe}"']}, max_retries=0
        )
        assert (await run(client, spec))[1].output == "of-python"


async def test_a_workspace_under_a_profile(running: DaemonProcess, workspace: Path) -> None:
    script = "echo x >new; echo evil >>.git/config; echo evil >.git/hooks/pre-commit; echo evil >.envrc; cat secret"
    async with running.client() as client:
        view, result = await run(client, command(script, workspace=str(workspace)))
        assert view.state == "failed"
        assert result.output["stdout"] == ""
        assert result.output["stderr"].count("Read-only file system") == 3
        assert "secret: Permission denied" in result.output["stderr"]
        assert (workspace / "new").exists()
        assert (workspace / ".envrc").read_text() == "mine"
        assert "evil" not in (workspace / ".git" / "config").read_text()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"profile": "open"}, "tasks[0].profile: a task of the agent `command` may not ask for the profile `open`."),
        ({"profile": "nosuch"}, "tasks[0].profile: "),
        ({"profile": "strict", "workspace": "HERE"}, "tasks[0].profile: the profile `strict` gives no workspace."),
        ({"profile": "other", "timeout_s": 31}, "tasks[0].timeout_s: the profile `other` allows 30 s, not 31."),
    ],
)
async def test_what_a_task_may_not_ask_for(running: DaemonProcess, workspace: Path, fields: dict[str, Any], says: str) -> None:
    fields = {name: str(workspace) if value == "HERE" else value for name, value in fields.items()}
    async with running.client() as client:
        with pytest.raises(SupervisorError) as refused:
            await client.submit([command("true", **fields)])
        assert says in str(refused.value)


async def test_the_longest_time_of_a_profile_is_that_of_its_attempts(running: DaemonProcess) -> None:
    async with running.client() as client:
        reply = await client.submit([command("true", profile="other"), command("true")])
        shown = [(await client.show(task)).spec.timeout_s for task in reply.tasks]
        assert shown == [30.0, 600.0]


async def test_a_profile_that_is_gone_after_a_restart_is_told(daemon: DaemonProcess, workspace: Path, tmp_path: Path) -> None:
    daemon.config.write_text(CONFIG.format(secret=workspace / "secret"))
    await daemon.start()
    gate = tmp_path / "gate"
    gate.mkdir()
    os.mkfifo(gate / "go")
    async with daemon.client() as client:
        first = command("cat go", id="a", workspace=str(gate))
        reply = await client.submit([first, command("true", id="b", dependencies=("a",), profile="other")])
    daemon.stop()
    daemon.config.write_text("")
    await daemon.start()
    async with daemon.client() as client:
        (gate / "go").unlink()
        (gate / "go").write_text("")
        waited = await client.wait(reply.tasks[1:], mode="all", timeout_s=90)
        assert waited.tasks[0].failure is not None
        assert "may not ask for the profile `other`" in waited.tasks[0].failure.message
