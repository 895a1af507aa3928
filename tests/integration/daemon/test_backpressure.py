"""Clients that are a burden: the others are served as before, and what the daemon keeps for them is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.daemon.feed import QUEUE_ITEMS
from supervisord_agents.errors import Unavailable
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import Item
from tests.support.crowd import crowd
from tests.support.daemon import DaemonProcess

MIB = 1024 * 1024
IDLE = 10_000
TASKS = 2_000
"""Lists of them are long."""
CONFIG = """
[daemon]
log_level = "warning"
[pools.standard]
min_workers = 1
max_workers = 2
scaling = "on-demand"
"""
_, DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    """With many tasks that wait for one that does not end."""
    process = DaemonProcess(tmp_path, CONFIG)
    try:
        await process.start()
        async with process.client() as client:
            held = TaskSpec(id="held", input={"argv": ["sleep", "1000"]})
            await client.submit([held, *(_waiting(f"t{number}") for number in range(TASKS))])
        yield process
    finally:
        process.close()


def _waiting(id: str) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": ["true"]}, dependencies=("held",))


def peak(daemon: DaemonProcess) -> int:
    """The most memory that it has ever had (VmHWM of proc_pid_status(5)), in bytes."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def serve_others(client: Client) -> None:
    """What others ask for is done: submits, tasks, reads."""
    for _ in range(10):
        task = (await client.submit([TaskSpec(input={"argv": ["true"]})])).tasks[0]
        assert (await client.wait([task], timeout_s=60)).tasks[0].state is State.SUCCEEDED
        assert len((await client.list(limit=1000)).tasks) == 1000


# Each slow one has four answers of a thousand rows made for it, and reads none of them in this time.
@pytest.mark.parametrize(("kind", "count", "room"), [("deaf", 1, 96 * MIB), ("slow", 200, 320 * MIB)])
async def test_others_are_served_and_memory_is_bounded(daemon: DaemonProcess, kind: str, count: int, room: int) -> None:
    async with daemon.client() as client:
        await serve_others(client)
        before = peak(daemon)
        with crowd(kind, daemon.socket, count):
            await serve_others(client)
            assert peak(daemon) - before < room
        await serve_others(client)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log_text()


@pytest.mark.slow
@pytest.mark.skipif(DESCRIPTORS < IDLE + 1000, reason=f"a process may have {DESCRIPTORS} descriptors here (ulimit -Hn)")
async def test_ten_thousand_idle_clients_are_no_burden(daemon: DaemonProcess) -> None:
    async with daemon.client() as client:
        await serve_others(client)
        before = peak(daemon)
        with crowd("idle", daemon.socket, IDLE):
            await serve_others(client)
            assert peak(daemon) - before < IDLE * 8192
        await serve_others(client)
    assert daemon.stop() == 0


async def test_clients_cannot_take_the_descriptors_that_tasks_need(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, CONFIG)
    daemon.argv = ["prlimit", "--nofile=800:800", *daemon.argv]
    try:
        await daemon.start()
        async with daemon.client() as client:
            with crowd("idle", daemon.socket, 399):
                with pytest.raises(Unavailable, match="400 clients are connected, the limit is 400"):
                    await Client.connect(daemon.socket)
                task = (await client.submit([TaskSpec(input={"argv": ["true"]})])).tasks[0]
                assert (await client.wait([task], timeout_s=60)).tasks[0].state is State.SUCCEEDED
    finally:
        daemon.close()


async def test_a_reader_that_falls_behind_is_let_go_and_resumes_without_a_gap(daemon: DaemonProcess) -> None:
    async with daemon.client() as slow, daemon.client() as client, contextlib.aclosing(slow.subscribe()) as items:
        first = asyncio.create_task(anext(items))
        await client.submit([_waiting_for_nothing("first")])
        seen = [await first]
        # Each task becomes ready and is cancelled: far more than the sockets and both queues hold.
        for _ in range(2 + 4 * QUEUE_ITEMS // TASKS):
            graph = (await client.submit([_waiting_for_nothing(f"t{number}") for number in range(TASKS)])).graph
            await client.cancel(graph)
        last = (await client.submit([_waiting_for_nothing("last")])).tasks[0]
        seen += [item async for item in items]
        assert seen[-1].kind == "lagged"
        async with daemon.client() as again:
            async for item in again.subscribe(after=seen[-1].token):
                seen.append(item)
                if (item.task, item.state) == (last, State.READY):
                    break
    assert [item.kind for item in seen if item.kind != "state"] == ["lagged"]
    tokens = [_place(item) for item in seen if item.kind == "state"]
    assert tokens == sorted(set(tokens))
    assert len(tokens) > QUEUE_ITEMS
    async with daemon.client() as whole:
        everything = []
        async for item in whole.subscribe(after=seen[0].token):
            everything.append(_place(item))
            if item.task == last:
                break
    assert tokens[1:] == everything


def _waiting_for_nothing(id: str) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": ["true"]}, pool="standard", priority=9)


def _place(item: Item) -> tuple[int, int]:
    sequence, index = item.token.split(".")
    return int(sequence), int(index)
