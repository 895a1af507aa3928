"""A later daemon's pools over the workers of an earlier one: those that work, idle, have died, or cannot be spoken to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from sandbox.spawner import Exit
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader
from supervisord_agents.workers import launcher
from supervisord_agents.workers.label import Label
from supervisord_agents.workers.listener import Running
from tests.support.pools import FUNCTION, PoolBench, StubSandbox, result, until

WORKER = "w_e_1"
RUNNING = Running("g.a", 1, reusable=True)


@pytest.fixture(autouse=True)
def _soon_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a channel that was handed to a dead worker stays here, with the test: it never closes."""
    monkeypatch.setattr(launcher, "DRAIN_S", 0.02)


@pytest_asyncio.fixture
async def before(tmp_path: Path) -> AsyncIterator[PoolBench]:
    made = PoolBench(tmp_path)
    yield made
    await made.pools.aclose()


@pytest_asyncio.fixture
async def after(tmp_path: Path) -> AsyncIterator[PoolBench]:
    made = PoolBench(tmp_path, epoch="later")
    yield made
    await made.pools.aclose()


async def left_behind(before: PoolBench) -> StubSandbox:
    """A worker with `g.a`, whose daemon has let go of it."""
    worker = await before.working("g.a")
    await before.pools.leave()
    assert not worker.killed
    return worker.taken_over()


def told(worker: StubSandbox) -> list[frames.ToWorker]:
    try:
        data = worker.channel.recv(1 << 20)
    except BlockingIOError:
        return []
    return [frames.to_worker_decoder.decode(payload) for payload in FrameReader().feed(data)]


async def hears(worker: StubSandbox) -> frames.ToWorker:
    heard: list[frames.ToWorker] = []
    await until(lambda: heard.extend(told(worker)) or heard)
    return heard[0]


async def test_an_attempt_goes_on(before: PoolBench, after: PoolBench) -> None:
    worker = await left_behind(before)
    assert await after.adopt(worker, **{WORKER: RUNNING}) == {"g.a"}
    assert after.view == (1, 0)
    await worker.take_new_channel()
    worker.hello("g.a", 1)
    assert await hears(worker) == frames.Resume(task="g.a", attempt=1, log_bytes=5)
    assert after.heard.found == [("g.a", 1, True)]
    worker.say(frames.Progress(task="g.a", attempt=1, fraction=0.5), result("g.a", output="x"))
    await until(lambda: after.heard.ended)
    assert after.heard.ended == [result("g.a", output="x")]
    await until(lambda: after.view == (0, 1))
    assert not after.heard.died


async def test_a_worker_that_never_got_its_task_is_told_again(before: PoolBench, after: PoolBench) -> None:
    worker = await left_behind(before)
    await after.adopt(worker, **{WORKER: RUNNING})
    await worker.take_new_channel()
    worker.hello()
    await until(lambda: after.heard.found)
    assert after.heard.found == [("g.a", 1, False)]
    message = frames.RunTask(task="g.a", attempt=1, spec=FUNCTION, agent_class="x")
    after.pools.launch("w-e-1", message)
    assert await hears(worker) == message
    worker.say(result("g.a"))
    await until(lambda: after.heard.ended)


async def test_a_stop_before_its_hello_ends_it(before: PoolBench, after: PoolBench) -> None:
    worker = await left_behind(before)
    await after.adopt(worker, **{WORKER: RUNNING})
    await worker.take_new_channel()
    after.pools.stop("g.a", 1, "CANCELLED")
    assert worker.killed
    await until(lambda: after.free == 2)
    assert not after.heard.died


async def test_before_its_hello_none_is_given_another_task(before: PoolBench, tmp_path: Path) -> None:
    """It may have one; and were it told before its hello, it would be told twice."""
    worker = await left_behind(before)
    after = PoolBench(tmp_path, epoch="later", max_workers=1)
    assert await after.adopt(worker) == set()
    await worker.take_new_channel()
    assert after.free == 0
    worker.hello()
    await until(lambda: after.free == 1)
    after.claim("g.b")
    assert isinstance(await hears(worker), frames.RunTask)
    assert (after.spawner.made, after.heard.found) == ([], [])
    await after.pools.aclose()


async def test_a_worker_that_has_not_worked_yet_is_used_and_another_is_not(before: PoolBench, after: PoolBench) -> None:
    fresh, used = await before.working("g.a"), await before.working("g.b")
    for worker, task in ((fresh, "g.a"), (used, "g.b")):
        worker.say(result(task))
    await until(lambda: before.view == (0, 2))
    await before.pools.leave()
    fresh, used = fresh.taken_over(), used.taken_over()
    assert await after.adopt(fresh, used) == set()
    for worker, task in ((fresh, ""), (used, "g.b")):
        await worker.take_new_channel()
        worker.hello(task, 1 if task else 0)
    await until(lambda: used.killed)
    assert not fresh.killed
    after.claim("g.c")
    assert isinstance(await hears(fresh), frames.RunTask)
    assert after.spawner.made == []


@pytest.mark.parametrize("why", ["pool", "label", "protocol"])
async def test_what_is_of_no_use_is_ended_and_has_ended(before: PoolBench, tmp_path: Path, why: str) -> None:
    worker = await left_behind(before)
    after = PoolBench(tmp_path, pool="another" if why == "pool" else "p", epoch="later")
    if why == "label":
        worker.label = b"\xc1"
    elif why == "protocol":
        label = Label.read(worker.label)
        worker.label = msgspec.structs.replace(label, protocol=frames.WORKER_PROTOCOL_VERSION + 1).written()
    assert await after.adopt(worker, **{WORKER: RUNNING}) == set()
    assert worker.killed
    assert list(after.pools.workers) == []
    await after.pools.aclose()


@pytest.mark.parametrize("left_an_end", [True, False])
async def test_the_end_of_one_that_died_meanwhile_is_told(before: PoolBench, after: PoolBench, left_an_end: bool) -> None:
    worker = await left_behind(before)
    if left_an_end:
        worker.outbox.put(frames.encoder.encode(result("g.a", output="kept")))
    worker.leave(Exit(code=-1, signal=9, oom_killed=True, memory_peak_bytes=1 << 20))
    assert await after.adopt(worker, **{WORKER: RUNNING}) == {"g.a"}
    await until(lambda: after.heard.ended or after.heard.died)
    if left_an_end:
        assert after.heard.ended == [result("g.a", output="kept")]
    else:
        assert [(task, failure.code) for task, _, failure in after.heard.died] == [("g.a", "OUT_OF_MEMORY")]
    await until(lambda: not after.directory.joinpath("w-e-1").exists())


async def test_one_that_says_nothing_is_given_up(before: PoolBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await left_behind(before)
    monkeypatch.setattr("supervisord_agents.workers.pool.HELLO_S", -1.0)
    monkeypatch.setattr("supervisord_agents.wire.frames.HEARTBEAT_S", 0.0)
    after = PoolBench(tmp_path, epoch="later")
    await after.adopt(worker, **{WORKER: RUNNING})
    await until(lambda: worker.killed)
    assert [(task, failure.code) for task, _, failure in after.heard.died] == [("g.a", "WORKER_DIED")]
    await after.pools.aclose()


async def test_a_new_worker_does_not_share_the_uid_of_an_adopted_one(before: PoolBench, after: PoolBench) -> None:
    worker = await left_behind(before)
    await after.adopt(worker, **{WORKER: RUNNING})
    other = await after.working("g.b", TaskSpec(agent="python", input={"function": "a:b"}))
    assert other.uid != worker.uid


async def test_letting_go_kills_nothing_and_leaves_the_outbox(before: PoolBench) -> None:
    worker = await left_behind(before)
    assert (before.directory / "w-e-1" / "outbox").exists()
    assert before.heard.died == []
    worker.leave(Exit(code=0))
