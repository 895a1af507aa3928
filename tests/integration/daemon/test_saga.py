"""A graph that fails is undone by real workers, though the daemon is killed between the failure and the undoing."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisord_agents.core.model import Compensation, State, TaskSpec
from supervisord_agents.errors import InvalidInput
from tests.support.daemon import DaemonProcess

CONFIG = """
[pools.standard]
min_workers = 1
max_workers = 1
[pools.undo]
min_workers = 1
max_workers = 2
"""
UNDO = """
import json, os
task = json.load(open(os.environ["AGENT_SUPERVISOR_TASK"]))
(name,) = task["dependencies"]
assert name == task["undoes"]
print(task["dependencies"][name]["output"]["stdout"].strip(), file=open("undone", "a"))
"""


def step(name: str, *after: str, workspace: Path) -> TaskSpec:
    undo = Compensation(input={"argv": ["python3", "-c", UNDO]}, pool="undo", max_retries=0)
    argv = ["sh", "-c", f"echo done {name}"]
    return TaskSpec(id=name, input={"argv": argv}, dependencies=after, workspace=str(workspace), compensate=undo)


@pytest.fixture
def daemon(daemon: DaemonProcess) -> DaemonProcess:
    daemon.config.write_text(CONFIG)
    return daemon


async def test_a_failed_graph_is_undone_once_over_a_kill(daemon: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    await daemon.start()
    async with daemon.client() as client:
        for fields, field in (({"input": {"argv": []}}, "input.argv"), ({"input": {"argv": ["true"]}, "pool": "no"}, "pool")):
            with pytest.raises(InvalidInput) as caught:
                await client.submit([TaskSpec(input={"argv": ["true"]}, compensate=Compensation(**fields))])
            assert caught.value.field == f"tasks[0].compensate.{field}"
        await client.pause(pool="undo")
        bad = TaskSpec(id="bad", input={"argv": ["false"]}, max_retries=0, dependencies=("b",))
        graph = (await client.submit([step("a", workspace=workspace), step("b", "a", workspace=workspace), bad])).graph
        assert (await client.wait([graph], timeout_s=60.0)).done
    daemon.kill()
    await daemon.start()
    async with daemon.client() as client:
        undo = f"u{graph}"
        assert [task.state for task in (await client.list(graph=undo)).tasks] == [State.BLOCKED, State.READY]
        assert (await client.show(f"{graph}.bad")).undone_by == undo
        with pytest.raises(InvalidInput, match=f"undone by {undo}"):
            await client.retry(f"{graph}.bad")
        await client.resume(everything=True)
        assert (await client.wait([undo], timeout_s=60.0)).done
        shown = await client.show(f"{undo}.a")
        assert (shown.task.state, shown.undoes) == (State.SUCCEEDED, f"{graph}.a")
    assert (workspace / "undone").read_text() == "done b\ndone a\n"
