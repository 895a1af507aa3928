"""A real file system that is full, that fails fsync, or that stalls, below a whole daemon.

test_disk.py has the same for the journal's own file operations, which also runs where nothing can be mounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import DiskFull, SupervisorError
from supervisord_agents.rpc.client import Client
from tests.support.faulty_daemon import SMALL_JOURNAL
from tests.support.lossy_disk import Loss
from tests.support.lossy_machine import LossyMachine, why_not

MIB = 1024 * 1024
CONFIG = f"{SMALL_JOURNAL}disk_warning_percent = 80\n"

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing is missing")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LossyMachine]:
    machine = LossyMachine(tmp_path, CONFIG, capacity=MIB)
    machine.boot()
    yield machine
    machine.close()


def command(id: str, *argv: str, size: int = 0) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": list(argv), "stdin": "x" * size})


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """The limit of the test's time ends a wait in vain."""
    while not await met():
        await asyncio.sleep(0.02)


async def running(client: Client, workspace: Path) -> str:
    """A task that ends when the file `go` is in its workspace."""
    argv = ["sh", "-c", "until [ -e go ]; do sleep 0.05; done; echo it is done"]
    task = (await client.submit([TaskSpec(input={"argv": argv}, workspace=str(workspace))])).tasks[0]
    await until(lambda: _runs(client, task))
    return task


async def fill(client: Client, size: int) -> list[str]:
    """Submit until the disk is full; gives the tasks that were acknowledged."""
    accepted: list[str] = []
    while True:
        try:
            accepted += (await client.submit([command("t", "true", size=size)])).tasks
        except DiskFull:
            return accepted


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


async def test_a_full_disk_refuses_new_work_records_ends_and_recovers_by_itself(machine: LossyMachine, workspace: Path) -> None:
    await machine.start()
    async with machine.client() as client:
        task = await running(client, workspace)
        assert not (await client.status()).notes
        machine.set(capacity=machine.look()["used"] * 6 // 5)
        await until(lambda: _noted(client, "% full"))
        assert (await client.status()).accepting
        accepted = await fill(client, 5000)
        assert accepted
        assert not (await client.status()).accepting
        (workspace / "go").touch()
        ended = (await client.wait([task], timeout_s=60)).tasks[0]
        assert ended.state is State.SUCCEEDED
        assert "it is done" in str((await client.result(task)).result.output)
        machine.set(capacity=8 * MIB)

        async def accepting() -> bool:
            return (await client.status()).accepting

        await until(accepting)
        waited = await client.wait(accepted, mode="all", timeout_s=60)
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}

        async def quiet() -> bool:
            return not (await client.status()).notes

        await until(quiet)
    assert machine.stop() == 0
    assert "Traceback" not in machine.log_text()


async def test_a_power_cut_on_a_full_disk_loses_nothing_that_was_told(machine: LossyMachine, workspace: Path) -> None:
    await machine.start()
    async with machine.client() as client:
        task = await running(client, workspace)
        machine.set(capacity=machine.look()["used"] + 40_000)
        accepted = await fill(client, 3000)
        (workspace / "go").touch()
        assert (await client.wait([task], timeout_s=60)).tasks[0].state is State.SUCCEEDED
    machine.capacity = machine.look()["capacity"]
    machine.cut_power(Loss.ALL, 1)
    machine.boot()
    await machine.start()
    async with machine.client() as client:
        assert {view.id for view in (await client.list(limit=1000)).tasks} == {task, *accepted}
        assert "it is done" in str((await client.result(task)).result.output)
        machine.set(capacity=8 * MIB)
        waited = await client.wait(accepted, mode="all", timeout_s=60)
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}


async def test_a_failed_fsync_ends_the_daemon_and_loses_nothing_that_was_told(machine: LossyMachine, workspace: Path) -> None:
    await machine.start()
    async with machine.client() as client:
        ended = (await client.submit([command("a", "true")])).tasks[0]
        await client.wait([ended], timeout_s=30)
        task = await running(client, workspace)
        machine.set(sync_fails=True)
        for _ in range(2):
            with pytest.raises(SupervisorError):
                await client.submit([command("never", "true")])
    assert await asyncio.to_thread(machine.wait) == 1
    assert "the journal cannot be written: Input/output error" in machine.log_text()
    assert "Nothing that was acknowledged is lost" in machine.log_text()
    # The kernel, and so this disk, has dropped what it could not write.
    machine.cut_power(Loss.ALL, 1)
    machine.boot()
    await machine.start()
    (workspace / "go").touch()
    async with machine.client() as client:
        assert not (await client.status()).recovery.clean
        assert {view.id for view in (await client.list()).tasks} == {ended, task}
        assert (await client.show(ended)).task.attempt == 1
        waited = await client.wait([ended, task], mode="all", timeout_s=60)
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}


async def test_while_the_disk_stalls_nothing_is_told_too_early_and_reads_are_answered(
    machine: LossyMachine, workspace: Path
) -> None:
    await machine.start()
    async with machine.client() as client, machine.client() as other:
        ended = (await client.submit([command("a", "true")])).tasks[0]
        await client.wait([ended], timeout_s=30)
        task = await running(client, workspace)
        held = (await client.submit([command("held", "sleep", "1000")])).tasks[0]
        await until(lambda: _runs(client, held))
        machine.set(stalled=True)
        submitting = asyncio.create_task(client.submit([command("late", "true")]))
        while not machine.look()["waiting"]:
            await asyncio.sleep(0.01)
        # The end of a task that runs waits for the disk as well, and is not told before.
        (workspace / "go").touch()
        await until(lambda: _noted(other, "wait for the disk"))

        async def ended_unseen() -> bool:
            return (await other.status()).counts["succeeded"] == 2

        await until(ended_unseen)
        status = await other.status()
        assert status.accepting
        assert (await other.show(ended)).task.state is State.SUCCEEDED
        assert (await other.result(ended)).result.error is None
        assert (await other.logs(ended)).ended
        assert not (await other.wait([held], timeout_s=0.1)).done
        looking = asyncio.create_task(other.show(task))
        assert (await other.show(held)).task.state is State.RUNNING
        assert not submitting.done()
        assert not looking.done()
        assert machine.look()["waiting"] == 1
        machine.set(stalled=False)
        late = (await submitting).tasks
        assert (await looking).task.state is State.SUCCEEDED
        waited = await other.wait([task, *late], mode="all", timeout_s=60)
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}
        await client.cancel(held)
        await until(lambda: _unnoted(other))
    assert machine.stop() == 0


async def _runs(client: Client, task: str) -> bool:
    return (await client.show(task)).task.state is State.RUNNING


async def _noted(client: Client, text: str) -> bool:
    return any(text in note for note in (await client.status()).notes)


async def _unnoted(client: Client) -> bool:
    return not (await client.status()).notes


async def test_daemons_with_state_on_different_disks_run_side_by_side(machine: LossyMachine, tmp_path: Path) -> None:
    """Their state directories have the same number of inode."""
    directory = tmp_path / "other"
    directory.mkdir()
    other = LossyMachine(directory, CONFIG, capacity=MIB)
    try:
        other.boot()
        for each in (machine, other):
            await each.start()
        for each in (machine, other):
            async with each.client() as client:
                task = (await client.submit([command("a", "true")])).tasks
                assert (await client.wait(task, timeout_s=30)).tasks[0].state is State.SUCCEEDED
    finally:
        other.close()


async def test_a_large_result_of_the_first_life_survives_a_loss_of_power(machine: LossyMachine) -> None:
    machine.set(capacity=8 * MIB)
    await machine.start()
    async with machine.client() as client:
        task = (await client.submit([command("large", "sh", "-c", "yes | head -c 200000")])).tasks[0]
        assert (await client.wait([task], timeout_s=30)).tasks[0].state is State.SUCCEEDED
        before = (await client.result(task)).result
    machine.cut_power(Loss.ALL, 1)
    machine.boot()
    await machine.start()
    async with machine.client() as client:
        assert (await client.result(task)).result == before
