"""A disk that is full, or broken: new work is refused, what was accepted is kept, and the daemon comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import DiskFull, SupervisorError
from supervisord_agents.rpc.client import Client
from tests.support.faulty_daemon import SMALL_JOURNAL, FaultyDaemon

SEGMENT_BYTES = 64 * 1024


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FaultyDaemon]:
    process = FaultyDaemon(tmp_path, SMALL_JOURNAL)
    yield process
    process.close()


def command(id: str, *argv: str, after: tuple[str, ...] = (), size: int = 0) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": list(argv), "stdin": "x" * size}, dependencies=after)


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """The limit of the test's time ends a wait in vain."""
    while not await met():
        await asyncio.sleep(0.02)


async def fill(client: Client) -> list[str]:
    """Submit until the disk is full; gives the tasks that were acknowledged."""
    accepted: list[str] = []
    while True:
        try:
            accepted += (await client.submit([command("t", "true", size=5000)])).tasks
        except DiskFull:
            return accepted


async def known(client: Client) -> dict[str, State]:
    return {view.id: view.state for view in (await client.list(limit=1000)).tasks}


async def test_a_full_disk_refuses_new_work_until_there_is_room_again(daemon: FaultyDaemon) -> None:
    await daemon.start()
    async with daemon.client() as client:
        running = await client.submit([command("long", "sleep", "1000")])
        await until(lambda: _is(client, running.tasks[0], State.RUNNING))
        daemon.shrink_disk(0)
        accepted = await fill(client)
        assert not (await client.status()).accepting
        await until(lambda: _noted(client, "no space for the journal"))
        # What runs is ended, and its end recorded; what waits is not started.
        await client.cancel(running.tasks[0])
        assert (await client.show(running.tasks[0])).task.state is State.CANCELLED
        states = await known(client)
        waiting = [task for task in accepted if states[task] is State.READY]
        assert waiting
        daemon.grow_disk()
        await until(lambda: _accepting(client))
        waited = await client.wait(accepted, mode="all", timeout_s=60)
        assert waited.done
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}
        await until(lambda: _unnoted(client))
        after = await client.submit([command("t", "true")])
        assert (await client.wait(after.tasks, mode="all", timeout_s=30)).done
    assert daemon.stop() == 0


async def test_a_daemon_killed_on_a_full_disk_starts_on_it_and_has_everything(daemon: FaultyDaemon) -> None:
    await daemon.start()
    async with daemon.client() as client:
        daemon.shrink_disk(0)
        accepted = await fill(client)
        before = await known(client)
    daemon.kill()
    (daemon.state / "journal" / "reserve").unlink(missing_ok=True)
    (daemon.state / "journal" / "spare").unlink(missing_ok=True)
    # The room that the end of the last segment gives back is not enough for a new one.
    daemon.shrink_disk(-SEGMENT_BYTES)
    daemon.spawn()
    await until(lambda: _logged(daemon, "no_room_to_start"))
    daemon.assert_alive()
    assert "Traceback" not in daemon.log_text()
    daemon.shrink_disk(SEGMENT_BYTES + 4096)
    async with daemon.client() as client:
        assert set(await known(client)) == set(before)
        assert not (await client.status()).accepting
        daemon.grow_disk()
        waited = await client.wait(accepted, mode="all", timeout_s=60)
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}


async def test_sigterm_ends_the_wait_for_room(daemon: FaultyDaemon) -> None:
    await daemon.start()
    assert daemon.stop() == 0
    (daemon.state / "journal" / "reserve").unlink()
    daemon.shrink_disk(0)
    daemon.spawn()
    await until(lambda: _logged(daemon, "no_room_to_start"))
    assert daemon.stop() == 0


async def test_a_failed_sync_ends_the_daemon_and_the_next_has_all_that_was_acknowledged(daemon: FaultyDaemon) -> None:
    await daemon.start()
    async with daemon.client() as client:
        accepted = (await client.submit([command("a", "true"), command("b", "true", after=("a",))])).tasks
        await client.wait(accepted, mode="all", timeout_s=30)
        waiting = (await client.submit([command("long", "sleep", "1000"), command("last", "true", after=("long",))])).tasks
        await until(lambda: _is(client, waiting[0], State.RUNNING))
        daemon.break_sync()
        with pytest.raises(SupervisorError):
            await client.submit([command("never", "true")])
        with pytest.raises(SupervisorError):
            await client.submit([command("never", "true")])
    assert daemon.process is not None
    assert await asyncio.to_thread(daemon.process.wait, 30) == 1
    log = daemon.log_text()
    assert "the journal cannot be written: Input/output error" in log
    assert "Nothing that was acknowledged is lost" in log
    daemon.mend_sync()
    await daemon.start()
    async with daemon.client() as client:
        states = await known(client)
        assert set(states) >= {*accepted, *waiting}
        assert {states[task] for task in accepted} == {State.SUCCEEDED}
        assert not (await client.status()).recovery.clean
        again = await client.submit([command("again", "true")])
        assert (await client.wait(again.tasks, mode="all", timeout_s=30)).tasks[0].state is State.SUCCEEDED


async def test_a_snapshot_without_room_is_told_and_spoils_nothing(daemon: FaultyDaemon) -> None:
    daemon.config.write_text(SMALL_JOURNAL + "snapshot_every_records = 100\n")
    await daemon.start()
    async with daemon.client() as client:
        held = (await client.submit([command("held", "sleep", "1000")])).tasks[0]
        # Room for a segment, not for a snapshot of all these.
        daemon.shrink_disk(2 * SEGMENT_BYTES)
        tasks = []
        for number in range(100):
            tasks += (await client.submit([command(f"t{number}", "true", after=(held,), size=1500)])).tasks
        await until(lambda: _noted(client, "no snapshot could be written"))
        assert (await client.status()).counts["blocked"] == 100
    assert daemon.stop() == 0
    assert "snapshot_failed" in daemon.log_text()
    daemon.grow_disk()
    await daemon.start()
    async with daemon.client() as client:
        assert (await client.status()).recovery.clean
        assert set(await known(client)) == {held, *tasks}


async def _is(client: Client, task: str, state: State) -> bool:
    return (await client.show(task)).task.state is state


async def _accepting(client: Client) -> bool:
    return (await client.status()).accepting


async def _noted(client: Client, text: str) -> bool:
    return any(text in note for note in (await client.status()).notes)


async def _unnoted(client: Client) -> bool:
    return not (await client.status()).notes


async def _logged(daemon: FaultyDaemon, text: str) -> bool:
    daemon.assert_alive()
    return text in daemon.log_text()
