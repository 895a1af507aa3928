"""Resume tokens over a restart: nothing missing, nothing twice, no gap."""

from __future__ import annotations

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
