"""Over a restart: resume tokens with nothing missing, nothing twice, no gap; and nothing starts before recovery is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.wire.messages import Item
from tests.support.daemon import DaemonProcess


def chain(length: int) -> list[TaskSpec]:
    def after(number: int) -> tuple[str, ...]:
        return (f"t{number - 1}",) if number else ()

    return [TaskSpec(id=f"t{number}", input={"argv": ["true"]}, dependencies=after(number)) for number in range(length)]


async def heard(daemon: DaemonProcess, after: str, graph: str, *, until: tuple[str, State]) -> list[Item]:
    """The changes of state after the token, up to that of a task."""
    items = []
    async with daemon.client() as client:
        async for item in client.subscribe(after=after, graph=graph):
            if item.kind in ("state", "gap", "lagged"):
                items.append(item)
            if (item.task, item.state) == until:
                return items
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_subscriber_goes_on_after_a_restart_where_it_was(daemon: DaemonProcess, end: str) -> None:
    await daemon.start()
    async with daemon.client() as client:
        submitted = await client.submit(chain(4))
        first, last = submitted.tasks[0], submitted.tasks[-1]
        await client.wait([last], mode="all", timeout_s=60)
    everything = await heard(daemon, "0.0", submitted.graph, until=(last, State.SUCCEEDED))
    seen = await heard(daemon, "0.0", submitted.graph, until=(first, State.SUCCEEDED))
    assert 0 < len(seen) < len(everything)
    if end == "stop":
        assert daemon.stop() == 0
    else:
        daemon.kill()
    await daemon.start()
    async with daemon.client() as client:
        more = await client.submit([TaskSpec(id="more", input={"argv": ["true"]})])
        await client.wait(more.tasks, mode="all", timeout_s=60)
    rest = await heard(daemon, seen[-1].token, submitted.graph, until=(last, State.SUCCEEDED))
    assert [(item.token, item.task, item.state) for item in seen + rest] == [
        (item.token, item.task, item.state) for item in everything
    ]
    newer = await heard(daemon, everything[-1].token, "", until=(more.tasks[0], State.SUCCEEDED))
    assert "gap" not in {item.kind for item in rest + newer}
    assert [(item.task, item.state) for item in newer if item.task == more.tasks[0]] == [
        (more.tasks[0], state) for state in (State.READY, State.RUNNING, State.SUCCEEDED)
    ]


MODULE = """
import os, time

def mark(context, size):
    open(os.path.join(context.workspace, "begun." + context.task_id), "w").close()
    while not os.path.exists(os.path.join(context.workspace, "go")):
        time.sleep(0.01)
    with open(os.path.join(context.workspace, "done.log"), "a") as file:
        file.write(context.task_id + "\\n")
    return "x" * size
"""


async def test_what_becomes_ready_while_ends_are_adopted_runs_once(tmp_path: Path) -> None:
    """One end is in the journal at once and makes a task ready; the other's large output still has to be written."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "marker.py").write_text(MODULE)

    def mark(id: str, size: int, *after: str) -> TaskSpec:
        given = {"function": "marker:mark", "kwargs": {"size": size}}
        return TaskSpec(id=id, agent="python", input=given, workspace=str(workspace), dependencies=after)

    daemon = DaemonProcess(tmp_path, "[daemon]\norphan_grace_s = 30.0\n[pools.standard]\nmin_workers = 2\nmax_workers = 2\n")
    try:
        await daemon.start()
        async with daemon.client() as client:
            tasks = (await client.submit([mark("small", 1), mark("large", 4_000_000), mark("next", 1, "small")])).tasks
            while len(list(workspace.glob("begun.*"))) < 2:
                await asyncio.sleep(0.01)
        daemon.kill()
        (workspace / "go").touch()
        await daemon.start()
        async with daemon.client() as client:
            waited = await client.wait(tasks, mode="all", timeout_s=60)
            assert {view.state for view in waited.tasks} == {State.SUCCEEDED}
            assert {view.id.split(".")[1]: view.attempt for view in waited.tasks} == {"small": 1, "large": 1, "next": 1}
    finally:
        daemon.close()
    assert set(Counter((workspace / "done.log").read_text().split()).values()) == {1}
