"""Ends of attempts: whether they are with the journal at once, and what the result says whatever became of the file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisord_agents.core.events import CancelRequested, RetryRequested, Started
from supervisord_agents.core.model import Failure, State
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.spool.meters import Meters
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.wire.frames import TaskError, TaskResult
from tests.support.engine import Machine

TASK = "g.t0"


class Bench:
    """A task that runs, and what records its end."""

    def __init__(self, directory: Path) -> None:
        self.machine = Machine(directory / "journal")
        self.results = ResultStore(directory / "results")
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
    assert bench.results.stamp(TASK) is None


async def test_an_end_of_another_attempt_changes_nothing(bench: Bench) -> None:
    assert bench.ends.ended("w", succeeded("old", attempt=7))
    assert (bench.state, bench.results.stamp(TASK)) == (State.RUNNING, None)


async def test_the_file_of_a_task_in_another_round_is_left_alone(bench: Bench) -> None:
    bench.ends.ended("w", TaskError(task=TASK, attempt=1, failure=Failure("WORKER_FAILED", "no", retriable=False), output="kept"))
    bench.machine.engine.feed(RetryRequested(task=TASK))
    before = bench.results.path(TASK).read_bytes()
    bench.ends.late_usage(TASK)
    assert bench.state is State.READY
    assert bench.results.path(TASK).read_bytes() == before
