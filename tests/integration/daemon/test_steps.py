"""A task of five steps, whose daemon is killed, which fails, and whose process dies: each step happens once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisord_agents.core.model import State, TaskSpec
from tests.support.daemon import DaemonProcess

FUNCTION = """
import os, signal, time

def effect(name):
    with open("effects", "a") as file:
        file.write(name + "\\n")
    return [name, len(open("effects").readlines())]

def third():
    made = effect("three")
    while not os.path.exists("go"):
        time.sleep(0.01)
    return made

def fourth():
    made = effect("four")
    os.kill(os.getpid(), signal.SIGKILL)

def work(context):
    steps = context.steps
    done = [steps.run(name, effect, name) for name in ("one", "two")]
    done.append(steps.run("three", third))
    if context.attempt == 1:
        raise ValueError("after three")
    if "four" in steps.unfinished:
        done.append(steps.finish("four", ["four", 4]))
    else:
        steps.run("four", fourth)
    return [*done, steps.run("five", effect, "five")]
"""


async def test_each_step_happens_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "work.py").write_text(FUNCTION)
    await daemon.start()
    spec = TaskSpec(agent="python", input={"function": "work:work"}, workspace=str(workspace), backoff_s=0.01, max_retries=5)
    async with daemon.client() as client:
        (task,) = (await client.submit([spec])).tasks
        async with asyncio.timeout(60):
            while "three" not in (workspace / "effects").read_text() if (workspace / "effects").exists() else True:
                await asyncio.sleep(0.01)
        shown = await client.show(task)
        assert [(step.name, bool(step.done_at)) for step in shown.steps] == [("one", True), ("two", True), ("three", False)]
    daemon.kill()
    (workspace / "go").touch()  # the step ends while nobody is there to hear it
    await daemon.start()
    async with daemon.client() as client:
        view = (await client.wait([task], mode="all", timeout_s=60)).tasks[0]
        assert (view.state, view.attempt) == (State.SUCCEEDED, 3)
        output = (await client.result(task)).result.output
        assert output == [[name, number] for number, name in enumerate(("one", "two", "three", "four", "five"), start=1)]
        assert (await client.show(task)).steps == []
        why = (await client.why(task)).reasons
    assert (workspace / "effects").read_text().split() == ["one", "two", "three", "four", "five"]
    assert any("after three" in reason for reason in why)
