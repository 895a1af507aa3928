"""Large frames, dense graphs, full queues: what a limit is about is told, and nothing else is in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import ProtocolError, QueueFull
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES
from tests.support.daemon import DaemonProcess

MIB = 1024 * 1024
LAYER = 900
"""Names of all that such a layer waits for would fill more than a frame."""


def command(id: str, *after: str, **more: object) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": ["true"], **more}, dependencies=after)


def pieces(size: int) -> list[TaskSpec]:
    """A graph of so many bytes, none of its tasks too large."""
    return [command(f"t{number}", stdin="x" * MIB) for number in range(size // MIB)]


async def test_a_raised_limit_of_frames_holds_for_agentctl_too(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, f"[daemon]\nmax_frame_bytes = {64 * MIB}\n")
    try:
        await daemon.start()
        graph = tmp_path / "graph.json"
        tasks = [{"id": spec.id, "input": spec.input} for spec in pieces(10 * MIB)]
        graph.write_text(json.dumps({"tasks": tasks}))
        submitted = daemon.agentctl("submit", "--json", "--file", str(graph))
        assert submitted.returncode == 0, submitted.stderr
        assert len(json.loads(submitted.stdout)["tasks"]) == 10
    finally:
        daemon.close()


async def test_by_default_such_a_submit_is_refused_before_it_is_sent(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        with pytest.raises(ProtocolError, match=f"the limit is {DEFAULT_MAX_FRAME_BYTES}"):
            await client.submit(pieces(10 * MIB))
        assert (await client.list()).total == 0


@pytest.mark.slow
async def test_a_dense_graph_can_be_waited_for(daemon: DaemonProcess) -> None:
    await daemon.start()
    first = [f"a{number}" for number in range(LAYER)]
    async with daemon.client() as client:
        # Of a task that does not end, so that all of the second layer is blocked.
        held = [TaskSpec(id=name, input={"argv": ["sleep", "1000"]}) for name in first]
        reply = await client.submit([*held, *(command(f"b{number}", *first) for number in range(LAYER))])
        waited = await client.wait([reply.graph], timeout_s=0)
        blocked = [task for task in waited.tasks if task.state is State.BLOCKED]
        assert {(len(task.waits_for), task.waits_for_count) for task in blocked} == {(5, LAYER)}
        assert len(blocked) == LAYER
        assert len((await client.show(blocked[0].id)).dependencies) == LAYER
        await client.cancel(reply.graph)


async def test_a_full_queue_says_what_would_be_too_many(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, "[daemon]\nmax_pending_tasks = 2\n")
    try:
        await daemon.start()
        async with daemon.client() as client:
            first = await client.submit([TaskSpec(input={"argv": ["sleep", "1000"]})] * 2, key="k")
            with pytest.raises(QueueFull, match="this graph of 5 would make 7 pending tasks, the limit is 2") as caught:
                await client.submit([TaskSpec(input={"argv": ["true"]})] * 5)
            assert caught.value.kept == "Nothing of this graph was accepted."
            assert (await client.submit([], key="k")).graph == first.graph
        refused = daemon.agentctl("submit", "--", "true")
        assert refused.returncode == 3
        assert "would make 3 pending tasks" in refused.stderr
    finally:
        daemon.close()
