"""A function that submits children and waits for them, in a pool of one worker, over the death of the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisord_agents.core.model import State, TaskSpec
from tests.support.daemon import DaemonProcess

FUNCTION = """
import os, time

def square(number):
    while not os.path.exists("go"):
        time.sleep(0.01)
    return number * number

def total(context):
    children = context.children
    if children.state is None:
        call = lambda number: {"agent": "python", "workspace": context.workspace, "max_retries": 0,
                               "input": {"function": "work:square", "args": [number]}}
        names = children.submit([call(2), call(3)])
        names += children.submit([call(4) | {"id": "last"}])
        children.wait({"names": names})
    return [children.state, {name: child.output for name, child in children.results.items()}, context.attempt]

def wider(context):
    context.children.submit([{"agent": "command", "input": {"argv": ["true"]}, "workspace": "/"}])

def upwards(context):
    context.children.submit([{"agent": "command", "input": {"argv": ["true"]}, "dependencies": [context.task_id]}])
"""


async def test_a_parent_waits_without_a_worker_and_survives_the_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "work.py").write_text(FUNCTION)
    daemon.config.write_text("[pools.standard]\nmin_workers = 0\nmax_workers = 1\n")
    await daemon.start()

    def calls(name: str) -> TaskSpec:
        return TaskSpec(id=name, agent="python", input={"function": f"work:{name}"}, workspace=str(workspace), max_retries=0)

    async with daemon.client() as client:
        (task,) = (await client.submit([calls("total")])).tasks
        async with asyncio.timeout(60):
            while (await client.show(task)).task.state is not State.BLOCKED:
                await asyncio.sleep(0.01)
        shown = await client.show(task)
        assert len(shown.children) == 3
        assert (await client.show(shown.children[0])).task.parent == task
        assert "3 children" in (await client.why(task)).reasons[0]
    daemon.kill()
    (workspace / "go").touch()
    await daemon.start()
    async with daemon.client() as client:
        view = (await client.wait([task], mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.SUCCEEDED, 2)
        state, outputs, attempt = (await client.result(task)).result.output
        assert state["names"] == shown.children
        assert (outputs, attempt) == ({"t1": 4, "t2": 9, "last": 16}, 2)
        refused = (await client.submit([calls("wider"), calls("upwards")])).tasks
        views = (await client.wait(refused, mode="all", timeout_s=60)).tasks
        messages = [view.failure.message for view in views if view.failure]
        assert "tasks[0].workspace: a child works in its parent's workspace" in messages[0]
        assert f"t1 -> {refused[1]} -> t1" in messages[1]
