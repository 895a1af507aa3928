"""Ends of attempts: whether they are with the journal at once, and what the result says whatever became of the file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from supervisord_agents.core.events import CancelRequested, Finished, RetryRequested, Started
from supervisord_agents.core.model import Failure, Result, State, Usage
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.spool.meters import Meters
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.wire.frames import TaskError, TaskResult
from tests.support.engine import Machine
from tests.support.journal import StepFiles

TASK = "g.t0"


class Bench:
    """A task that runs, and what records its end."""

    def __init__(self, directory: Path) -> None:
        self.machine = Machine(directory / "journal")
        self.files = StepFiles()
        self.results = ResultStore(directory / "results", self.files)
        self.ends = Ends(self.results, Accounts(Meters(directory / "meters")))
        self.ends.attach(self.machine.engine)
        self.machine.submit("g")
        self.machine.engine.feed(Started(task=TASK, attempt=1, worker="w"))

    @property
    def state(self) -> State:
        return self.machine.scheduler.tasks[TASK].state


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.machine.aclose()


def succeeded(output: object, attempt: int = 1) -> TaskResult:
    return TaskResult(task=TASK, attempt=attempt, output=output)


async def test_a_small_end_is_with_the_journal_at_once(bench: Bench) -> None:
    assert bench.ends.ended("w", succeeded("small"))
    assert (bench.state, bench.results.read(TASK).output) == (State.SUCCEEDED, "small")


@pytest.mark.parametrize("output", ["x" * 70_000, "\x01" * 20_000], ids=["as it is", "as JSON"])
async def test_a_large_end_says_that_it_is_not_and_is_fed_once_its_file_is_there(bench: Bench, output: str) -> None:
    assert not bench.ends.ended("w", succeeded(output))
    assert bench.state is State.RUNNING
    await bench.ends.recorded()
    assert (bench.state, bench.results.read(TASK).output) == (State.SUCCEEDED, output)


async def test_a_large_end_of_an_attempt_that_was_cancelled_meanwhile_leaves_no_trace(bench: Bench) -> None:
    assert not bench.ends.ended("w", succeeded("x" * 70_000))
    bench.machine.engine.feed(CancelRequested(task=TASK))
    await bench.ends.recorded()
    assert bench.state is State.CANCELLED
    assert not bench.results.path(TASK).exists()


async def test_an_end_of_another_attempt_changes_nothing(bench: Bench) -> None:
    assert bench.ends.ended("w", succeeded("old", attempt=7))
    assert (bench.state, bench.results.path(TASK).exists()) == (State.RUNNING, False)


async def test_the_file_of_a_task_in_another_round_is_left_alone(bench: Bench) -> None:
    bench.ends.ended("w", TaskError(task=TASK, attempt=1, failure=Failure("WORKER_FAILED", "no", retriable=False), output="kept"))
    await bench.ends.recorded()
    bench.machine.engine.feed(RetryRequested(task=TASK))
    before = bench.results.path(TASK).read_bytes()
    bench.ends.late_usage(TASK)
    assert bench.state is State.READY
    assert bench.results.path(TASK).read_bytes() == before


async def test_a_file_whose_output_is_nowhere_else_gives_way_only_to_one_that_is_on_disk(bench: Bench) -> None:
    """What came late is written beside it, synced, and renamed: a loss of power leaves the one or the other."""
    large = "x" * 70_000
    bench.ends.ended("w", succeeded(large))
    await bench.ends.recorded()
    bench.ends._accounts.count(TASK, 1, Usage(3, 4, 0.0))
    bench.files.calls.clear()
    bench.ends.late_usage(TASK)
    await bench.ends.recorded()
    assert bench.files.calls == ["create", "write", "sync", "rename"]
    assert (bench.results.read(TASK).output, bench.results.read(TASK).tokens_used) == (large, 7)


async def test_the_file_is_there_before_anybody_is_told_and_after_the_record(bench: Bench) -> None:
    bench.ends.ended("w", succeeded("small"))
    assert not bench.results.path(TASK).exists()
    await bench.machine.engine.settled()
    assert msgspec.json.decode(bench.results.path(TASK).read_bytes(), type=Result).output == "small"


async def test_what_is_told_between_the_end_and_its_file_is_not_overwritten(bench: Bench) -> None:
    bench.ends.ended("w", succeeded("small"))
    bench.ends._accounts.count(TASK, 1, Usage(3, 4, 0.0))
    bench.ends.late_usage(TASK)
    await bench.ends.recorded()
    written = msgspec.json.decode(bench.results.path(TASK).read_bytes(), type=Result)
    assert (written.output, written.tokens_used) == ("small", 7)


async def test_of_two_late_counts_the_file_tells_both(bench: Bench) -> None:
    bench.ends.ended("w", succeeded("small"))
    for _ in range(2):
        bench.ends._accounts.count(TASK, 1, Usage(3, 4, 0.0))
        bench.ends.late_usage(TASK)
    await bench.ends.recorded()
    assert (bench.results.read(TASK).output, bench.results.read(TASK).tokens_used) == ("small", 14)


async def test_a_file_that_cannot_be_written_again_stays_as_it_was(bench: Bench) -> None:
    bench.ends.ended("w", succeeded("small"))
    await bench.ends.recorded()
    before = bench.results.path(TASK).read_bytes()
    bench.files.fail = lambda _, name: OSError(5, "Input/output error") if name == "sync" else None
    bench.ends._accounts.count(TASK, 1, Usage(3, 4, 0.0))
    bench.ends.late_usage(TASK)
    await bench.ends.recorded()
    assert bench.results.path(TASK).read_bytes() == before


@pytest.mark.parametrize("field", ["output", "task_id", "error"])
async def test_after_a_crash_a_file_that_is_wrong_anywhere_is_written_again(bench: Bench, field: str) -> None:
    """A loss of power may leave any part of a file that was not synced, also a part that reads well."""
    bench.ends.ended("w", succeeded("right"))
    await bench.ends.recorded()
    right = bench.results.read(TASK)
    event = Finished(task=TASK, attempt=1, output="right")
    assert bench.ends.restore([TASK], {TASK: event}) == 0
    wrong = {"output": "r\x00ght", "task_id": "h.t0", "error": Failure("INTERNAL", "never")}[field]
    bench.results.path(TASK).write_bytes(msgspec.json.encode(msgspec.structs.replace(right, **{field: wrong})))
    assert bench.ends.restore([TASK], {TASK: event}) == 1
    restored = msgspec.json.decode(bench.results.path(TASK).read_bytes(), type=Result)
    assert msgspec.structs.replace(restored, completed_at=right.completed_at) == right


async def test_what_is_written_again_after_a_crash_still_says_that_it_was_cut(bench: Bench) -> None:
    failure = Failure("WORKER_FAILED", "no", retriable=False)
    bench.ends.ended("w", TaskError(task=TASK, attempt=1, failure=failure, output="a part", truncated=True))
    kept = bench.results.read(TASK)
    bench.results.put(msgspec.structs.replace(kept, worker_id="spoilt"))
    bench.ends.restore([TASK], {})
    await bench.ends.recorded()
    assert (bench.results.read(TASK).worker_id, bench.results.read(TASK).truncated) == ("w", True)


@pytest.mark.parametrize("retries", [True, False])
async def test_the_output_of_a_stopped_attempt_is_kept_as_partial_until_another_attempt_ends(bench: Bench, retries: bool) -> None:
    bench.ends.died(TASK, 1, Failure("STALLED", "still", retriable=retries))
    bench.ends.stopped(TaskError(task=TASK, attempt=1, failure=Failure("CANCELLED"), output="half"))
    await bench.ends.recorded()
    result = bench.results.read(TASK)
    assert (result.output, result.partial, result.status) == ("half", True, "failed")
    assert result.error is not None
    assert result.error.code == "STALLED"
    task = bench.machine.scheduler.tasks[TASK]
    if not retries:
        assert bench.ends.answer(task) == result
        event = Finished(task=TASK, attempt=1, failure=task.failure)
        bench.ends.restore({TASK}, {TASK: event})
        await bench.ends.recorded()
        assert bench.results.read(TASK) == result
    else:
        bench.machine.engine.feed(CancelRequested(task=TASK))
        assert bench.ends.answer(task).partial


async def test_what_comes_late_of_an_attempt_that_another_followed_is_not_kept(bench: Bench) -> None:
    bench.ends.died(TASK, 1, Failure("STALLED", "still", retriable=False))
    bench.machine.engine.feed(RetryRequested(task=TASK))
    bench.machine.engine.feed(Started(task=TASK, attempt=2, worker="w"))
    bench.ends.stopped(TaskError(task=TASK, attempt=1, failure=Failure("CANCELLED"), output="half"))
    await bench.ends.recorded()
    assert not bench.results.path(TASK).exists()
    bench.ends.ended("w", succeeded("whole", attempt=2))
    bench.ends.stopped(TaskError(task=TASK, attempt=2, failure=Failure("CANCELLED"), output="half"))
    await bench.ends.recorded()
    assert (bench.results.read(TASK).output, bench.results.read(TASK).partial) == ("whole", False)
