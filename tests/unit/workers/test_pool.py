"""The pools against workers that lie, fall silent, flood and die, and against a spawner that fails."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.spawner import Exit
from supervisord_agents.core.model import Limits, TaskSpec
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import frame
from supervisord_agents.workers import dialogue
from supervisord_agents.workers import pool as pool_module
from supervisord_agents.workers.worker import Channel
from tests.support.pools import COMMAND, FUNCTION, PoolBench, no_sandbox, result, until


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PoolBench]:
    made = PoolBench(tmp_path)
    yield made
    await made.pools.aclose()


def progress(task: str, fraction: float = 0.5, attempt: int = 1) -> frames.Progress:
    return frames.Progress(task=task, attempt=attempt, fraction=fraction)


HELLO = frames.WorkerHello(version=frames.WORKER_PROTOCOL_VERSION)


async def test_a_function_worker_takes_task_after_task_and_a_command_worker_one(bench: PoolBench) -> None:
    first = await bench.working("g.a")
    first.say(result("g.a"))
    await until(lambda: bench.view == (0, 1))
    bench.claim("g.b")
    first.say(result("g.b"))
    await until(lambda: len(bench.heard.ended) == 2)
    bench.claim("g.c", COMMAND)
    first.say(result("g.c"))
    await until(lambda: first.killed)
    assert len(bench.spawner.made) == 1


async def test_a_worker_that_says_so_takes_no_other_task(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.say(result("g.a", last=True))
    await until(lambda: worker.killed)
    assert bench.heard.ended == [result("g.a", last=True)]


@pytest.mark.parametrize(
    "forged",
    [result(""), progress(""), frames.Log(task="", attempt=0, stream="stdout", data=b"x"), progress("g.other"), result("g.a")],
)
async def test_frames_of_no_attempt_of_its_own_are_ignored(bench: PoolBench, forged: frames.Frame) -> None:
    worker = await bench.working("g.a")
    worker.say(result("g.a"))
    await until(lambda: bench.view == (0, 1))
    worker.say(forged, frames.Heartbeat())
    bench.claim("g.b")
    worker.say(result("g.b"))
    await until(lambda: len(bench.heard.ended) == 2)
    assert [end.task for end in bench.heard.ended] == ["g.a", "g.b"]
    assert bench.heard.said == []


async def test_an_end_before_its_worker_was_told_of_the_attempt_is_ignored(bench: PoolBench) -> None:
    bench.pools.claim("p", "g.a", 1, FUNCTION)
    await until(lambda: bench.spawner.made)
    bench.spawner.made[0].say(HELLO, result("g.a"))
    bench.spawner.made[0].leave(Exit(code=0))
    await until(lambda: bench.free == 2)
    assert bench.heard.ended == []
    assert [task for task, _, _ in bench.heard.died] == ["g.a"]


async def test_an_idle_worker_is_busy_with_nothing(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.say(result("g.a"))
    await until(lambda: bench.view == (0, 1))
    (known,) = bench.pools._workers.values()
    assert not known.busy_with("", 0)


@pytest.mark.parametrize("turn", [0, 1])
async def test_the_preferred_one_of_two_idle_workers_is_claimed(bench: PoolBench, turn: int) -> None:
    for name in ("g.a", "g.b"):
        await bench.working(name)
    for worker, name in zip(bench.spawner.made, ("g.a", "g.b"), strict=True):
        worker.say(result(name))
    await until(lambda: bench.view == (0, 2))
    idle, busy = bench.pools.hands()
    preferred = idle["p"][turn]
    assert bench.pools.claim("p", "g.c", 1, FUNCTION, prefer=preferred) == preferred
    assert (bench.pools.hands(), busy) == (({"p": [idle["p"][1 - turn]]}, {preferred}), set())


async def test_whatever_a_frame_brings_about_is_the_fault_of_its_worker() -> None:
    heard: list[Exception] = []

    def fail(*_: object) -> None:
        raise OverflowError

    channel = Channel(fail, heard.append, lambda: None)
    channel.data_received(frame(frames.encoder.encode(frames.Heartbeat())))
    assert [type(error) for error in heard] == [OverflowError]


@pytest.mark.parametrize(
    "sent",
    [
        (frames.Heartbeat(),),
        (progress("g.a"),),
        (result("g.a"),),
        (HELLO, HELLO),
        (frames.WorkerHello(version=1),),
        (b"\xff\xff\xff\xff",),
        (HELLO, *[progress("g.other")] * (dialogue.MAX_STRAYS + 1)),
    ],
    ids=["beat first", "progress first", "result first", "second hello", "version", "garbage", "flood"],
)
async def test_a_breach_of_the_protocol_ends_the_worker_and_its_attempt(bench: PoolBench, sent: tuple[frames.Frame]) -> None:
    bench.claim("g.a")
    await until(lambda: bench.spawner.made)
    bench.spawner.made[0].say(*sent)
    await until(lambda: bench.free == 2)
    assert [(task, failure.code, failure.retriable) for task, _, failure in bench.heard.died] == [("g.a", "WORKER_DIED", True)]
    assert bench.spawner.made[0].killed
    assert bench.heard.ended == []


async def test_a_hello_after_the_result_does_not_bring_a_dying_worker_back(bench: PoolBench) -> None:
    worker = await bench.working("g.a", COMMAND)
    worker.say(result("g.a"), HELLO)
    await until(lambda: bench.free == 2)
    assert bench.view == (0, 0)
    assert (len(bench.heard.ended), bench.heard.died) == (1, [])


async def test_a_worker_that_closes_its_channel_is_ended(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.channel.close()
    await until(lambda: bench.heard.died)
    assert worker.killed


async def test_a_worker_that_never_says_hello_is_ended(bench: PoolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "HELLO_S", 0.0)
    await quick_watch(bench, monkeypatch)
    bench.claim("g.a")
    await until(lambda: bench.heard.died)
    ((_, _, failure),) = bench.heard.died
    assert "did not say hello" in failure.message
    await until(lambda: bench.free == 2)


async def test_a_worker_that_falls_silent_is_ended(bench: PoolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MISSED_HEARTBEATS", 0)
    await quick_watch(bench, monkeypatch)
    worker = await bench.working("g.a")
    await until(lambda: worker.killed)
    ((_, _, failure),) = bench.heard.died
    assert "no heartbeat" in failure.message


async def quick_watch(bench: PoolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "HEARTBEAT_S", 0.001)
    watcher = bench.pools._watcher
    assert watcher is not None
    watcher.cancel()
    bench.pools._watcher = bench.pools._jobs.spawn(bench.pools._watch())


async def test_progress_is_thinned_and_the_last_of_it_arrives_before_the_end(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.say(*(progress("g.a", number / 1000) for number in range(1000)))
    worker.say(result("g.a"))
    await until(lambda: bench.heard.ended)
    assert bench.heard.said[-1].fraction == 0.999
    assert len(bench.heard.said) < 100


async def test_progress_that_was_held_arrives_without_another(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.say(progress("g.a", 0.1), progress("g.a", 0.2))
    await until(lambda: len(bench.heard.said) == 2)
    assert [report.fraction for report in bench.heard.said] == [0.1, 0.2]


# The ends of workers


async def test_an_end_that_was_written_but_not_sent_counts(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.outbox.put(frames.encoder.encode(result("g.a", output=7)))
    worker.leave(Exit(code=-1, signal=9))
    await until(lambda: bench.free == 2)
    assert bench.heard.ended == [result("g.a", output=7)]
    assert bench.heard.died == []


async def test_an_end_of_another_attempt_in_the_outbox_does_not(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    worker.outbox.put(frames.encoder.encode(result("g.before")))
    worker.leave(Exit(code=1, oom_killed=True))
    await until(lambda: bench.heard.died)
    assert bench.heard.died[0][2].code == "OUT_OF_MEMORY"


@pytest.mark.parametrize("durable", [True, False])
async def test_the_files_of_a_worker_go_only_when_its_end_is_durable(bench: PoolBench, durable: bool) -> None:
    bench.heard.durable = durable
    worker = await bench.working("g.a", COMMAND)
    bench.heard.settling.clear()
    worker.say(result("g.a"))
    await until(lambda: bench.free == 2)
    assert os.listdir(bench.directory) == ["w-e-1"]
    bench.heard.settling.set()
    await bench.pools.aclose()
    assert os.listdir(bench.directory) == ([] if durable else ["w-e-1"])


async def test_at_the_close_ends_that_were_on_their_way_are_told_and_files_kept_if_not_durable(bench: PoolBench) -> None:
    done, undone = await bench.working("g.a"), await bench.working("g.b")
    bench.heard.durable = False
    done.say(result("g.a"))
    await bench.pools.aclose()
    assert undone.killed
    assert bench.heard.ended == [result("g.a")]
    assert bench.heard.died == []
    assert sorted(os.listdir(bench.directory)) == ["w-e-1", "w-e-2"]


async def test_a_large_end_is_durable_before_its_worker_takes_another_task(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    bench.heard.recorded = False
    bench.heard.settling.clear()
    worker.say(result("g.a", output="large"))
    await until(lambda: bench.heard.ended)
    assert (bench.view, bench.free) == ((0, 0), 1)
    bench.heard.settling.set()
    await until(lambda: bench.view == (0, 1))


# Cancel


async def test_a_cancelled_function_leaves_its_worker_usable(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    bench.pools.stop("g.a", 1, "CANCELLED")
    await until(lambda: b"cancel" in bench.told(worker))
    worker.say(result("g.a"))
    await until(lambda: bench.view == (0, 1))
    assert bench.heard.ended == []
    assert not worker.killed


async def test_a_worker_that_does_not_answer_a_cancel_is_killed(bench: PoolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "STOP_ANSWER_S", 0.0)
    worker = await bench.working("g.a")
    bench.pools.stop("g.a", 1, "TIMEOUT")
    await until(lambda: bench.free == 2)
    assert worker.killed
    assert (bench.heard.ended, bench.heard.died) == ([], [])


async def test_a_task_stopped_before_its_worker_was_up_leaves_the_worker_to_the_next(bench: PoolBench) -> None:
    first = bench.claim("g.a")
    bench.pools.stop("g.a", 1, "CANCELLED")
    assert bench.free == 2
    assert bench.claim("g.b") == first


# Failing to make one


@pytest.mark.parametrize(
    ("error", "code", "retriable"),
    [
        (no_sandbox(step="bind", errno=errno.ENOENT), "SANDBOX_DENIED", False),
        (no_sandbox(step="spawn", errno=errno.EMFILE), "INTERNAL", True),
        (no_sandbox(step="build", errno=errno.ENOMEM), "INTERNAL", True),
        (no_sandbox(step="build", errno=errno.ENOSPC), "DISK_FULL", True),
        (no_sandbox(step="build"), "INTERNAL", True),
        (OSError(errno.EDQUOT, "quota"), "DISK_FULL", True),
        (OSError(errno.EAGAIN, "again"), "INTERNAL", True),
        (ZeroDivisionError("a bug"), "INTERNAL", True),
    ],
)
async def test_a_failed_spawn_frees_everything(bench: PoolBench, error: Exception, code: str, retriable: bool) -> None:
    bench.spawner.error = error
    bench.claim("g.a")
    await until(lambda: bench.heard.died)
    ((task, _, failure),) = bench.heard.died
    assert (task, failure.code, failure.retriable) == ("g.a", code, retriable)
    assert bench.view == (0, 0)
    assert bench.free == (0 if retriable else 2), "held back for a while, unless it was the task's fault"
    await until(lambda: os.listdir(bench.directory) == [])


async def test_a_gateway_that_fails_costs_the_sandbox_and_leaves_nothing(bench: PoolBench) -> None:
    bench.spawner.with_listener = True
    bench.claim("g.a")
    await until(lambda: bench.heard.died)
    assert bench.spawner.made[0].killed
    assert bench.spawner.made[0].listeners[0].fileno() == -1
    assert bench.heard.died[0][2].code == "INTERNAL"
    await until(lambda: os.listdir(bench.directory) == [])


async def test_when_the_fork_server_has_gone_nothing_is_told_and_nothing_is_free(bench: PoolBench) -> None:
    worker = await bench.working("g.a")
    bench.claim("g.b", COMMAND)
    bench.spawner.error = no_sandbox(step="spawner")
    bench.spawner.ended = True
    worker.leave(Exit(code=-1, signal=9))
    await until(lambda: bench.view == (0, 0))
    assert bench.heard.died == []
    assert bench.free == 0


async def test_aclose_ends_though_a_spawn_never_does(bench: PoolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "CLOSE_S", 0.01)
    bench.spawner.hold.clear()
    bench.claim("g.a")
    await bench.pools.aclose()
    assert bench.view == (0, 0)


# Floor and ceiling


async def test_the_ceiling_holds_for_sandboxes_too(tmp_path: Path) -> None:
    bench = PoolBench(tmp_path, min_workers=2, max_workers=2)
    first = [bench.claim(f"g.{number}") for number in range(2)]
    await until(lambda: len(bench.spawner.made) == 2)
    assert first == ["w-e-1", "w-e-2"], "those that were being warmed are taken"
    for sandbox in bench.spawner.made:
        sandbox.hello()
    for number, sandbox in enumerate(bench.spawner.made):
        await until(lambda sandbox=sandbox: bench.told(sandbox) if sandbox.channel.setblocking(False) is None else b"")
        sandbox.say(result(f"g.{number}"))
    await until(lambda: bench.view == (0, 2))
    other = TaskSpec(agent="python", input=FUNCTION.input, limits=Limits(pids=7))
    for number in range(2):
        bench.claim(f"h.{number}", other)
    assert bench.free == 0
    await until(lambda: len(bench.spawner.made) == 4)
    assert len(bench.spawner.alive) == 2
    await bench.pools.aclose()


async def test_a_worker_waits_for_the_end_of_the_one_whose_place_it_takes(tmp_path: Path) -> None:
    bench = PoolBench(tmp_path, max_workers=1)
    first = await bench.working("g.a")
    first.say(result("g.a"))
    await until(lambda: bench.view == (0, 1))
    first.dies_at_once = False
    bench.claim("g.b", TaskSpec(agent="python", input=FUNCTION.input, limits=Limits(pids=7)))
    await until(lambda: first.killed)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(bench.spawner.made) == 1
    first.leave(Exit(code=-1, signal=9))
    await until(lambda: len(bench.spawner.made) == 2)
    await bench.pools.aclose()


async def test_a_shape_that_does_not_come_up_is_not_warmed_again(tmp_path: Path) -> None:
    bench = PoolBench(tmp_path, min_workers=1, max_workers=2)
    await until(lambda: bench.spawner.made)
    bench.spawner.error = no_sandbox(step="bind", errno=errno.ENOENT)
    bench.claim("g.a", TaskSpec(agent="python", input=FUNCTION.input, limits=Limits(pids=7)))
    await until(lambda: bench.heard.died)
    assert bench.pools._recent == {}
    await bench.pools.aclose()


async def test_a_worker_whose_workspace_was_replaced_is_not_used_again(bench: PoolBench, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    spec = TaskSpec(agent="python", input=FUNCTION.input, workspace=str(workspace))
    worker = await bench.working("g.a", spec)
    worker.say(result("g.a"))
    await until(lambda: bench.view == (0, 1))
    workspace.rename(tmp_path / "before")
    workspace.mkdir()
    bench.claim("g.b", spec)
    await until(lambda: len(bench.spawner.made) == 2)
    assert worker.killed


async def test_a_listener_that_fails_costs_no_slot(bench: PoolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await bench.working("g.a")

    def fail(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(bench.heard, "attempt_ended", fail)
    worker.say(result("g.a"))
    await until(lambda: bench.free == 2)
    assert [task for task, _, _ in bench.heard.died] == ["g.a"]
    assert worker.killed
