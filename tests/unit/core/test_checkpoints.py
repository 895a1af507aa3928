"""Steps: what was recorded as done is kept for the next attempt, and nothing else; what is too much is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.core import checkpoints
from supervisord_agents.core.checkpoints import MAX_NAME_CHARACTERS, MAX_RESULT_BYTES, MAX_STEPS, MAX_TASK_BYTES, Step
from supervisord_agents.core.events import Archived, Checkpointed, RetryRequested
from supervisord_agents.core.nesting import MAX_NESTING
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput, Unavailable
from tests.support.scheduling import Driven, a_task


def running(*names: str) -> Driven:
    driven = Driven()
    driven.submit(*(a_task(name, max_retries=3) for name in names))
    for name in names:
        driven.start(f"g.{name}")
    return driven


def say(driven: Driven, step: str, result: object = None, *, done: bool = True, task: str = "g.a", attempt: int = 0) -> None:
    now = attempt or driven.task(task).attempt
    assert driven.feed(Checkpointed(task=task, attempt=now, step=step, done=done, result=result)) == []


def known(scheduler: Scheduler, task: str = "g.a") -> dict[str, object]:
    """The results of what is done; what is not is `...`."""
    return {step.name: step.result if step.done else ... for step in scheduler.steps(task)}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(-5, 5), st.sampled_from(("", "fails", "lost")))))
def test_a_step_is_given_to_the_next_attempt_if_and_only_if_it_was_recorded_as_done(
    said: list[tuple[str, bool, int, str]],
) -> None:
    driven = Driven()
    driven.submit(a_task("a", max_retries=100))
    done: dict[str, int] = {}
    begun: set[str] = set()
    driven.start("g.a")
    for step, finished, result, then in said:
        say(driven, step, result if finished else None, done=finished)
        begun.add(step)
        if finished:
            done.setdefault(step, result)
        if then:
            _ = driven.restart() if then == "lost" else driven.finish("g.a", "WORKER_FAILED")
            if driven.offered() == []:
                driven.wait_until_due() if not driven.task("g.a").ended else driven.retry("g.a")
            driven.start("g.a")
        assert known(driven.scheduler) == {name: done.get(name, ...) for name in begun}
    assert driven.replayed().snapshot() == driven.scheduler.snapshot()
    restored = Scheduler.restore(driven.scheduler.snapshot())
    assert restored.snapshot() == driven.scheduler.snapshot()
    assert restored.steps("g.a") == driven.scheduler.steps("g.a")


def test_times_and_attempts_are_those_of_the_attempt_that_did_it() -> None:
    driven = running("a")
    say(driven, "one", done=False)
    driven.now += 2
    say(driven, "one", {"x": 1})
    say(driven, "two", done=False)
    assert [(step.begun_at, step.done_at) for step in driven.scheduler.steps("g.a")] == [(1000.0, 1002.0), (1002.0, 0.0)]
    driven.finish("g.a", "WORKER_FAILED")
    driven.wait_until_due()
    driven.start("g.a")
    say(driven, "one", done=False)
    say(driven, "two", done=False)
    one, two = driven.scheduler.steps("g.a")
    assert (one.attempt, one.result) == (1, {"x": 1})
    assert (two.attempt, two.begun_at, two.done) == (2, driven.now, False)


def test_what_another_attempt_says_changes_nothing() -> None:
    driven = running("a")
    driven.finish("g.a", "WORKER_FAILED")
    driven.wait_until_due()
    driven.start("g.a")
    say(driven, "late", attempt=1)
    driven.finish("g.a", "WORKER_FAILED")
    say(driven, "later", attempt=2)
    assert driven.scheduler.steps("g.a") == ()


def test_success_and_the_archive_end_them_and_a_failure_does_not() -> None:
    driven = running("a", "b")
    for task in ("g.a", "g.b"):
        say(driven, "one", 1, task=task)
    driven.finish("g.a")
    driven.finish("g.b", "INVALID")
    driven.cancel("g.b")
    assert known(driven.scheduler) == {}
    assert known(driven.scheduler, "g.b") == {"one": 1}
    driven.retry("g.b")
    assert known(driven.scheduler, "g.b") == {"one": 1}
    driven.cancel("g.b")
    driven.feed(Archived(graphs=("g",)))
    assert not driven.scheduler.table.checkpoints
    assert driven.scheduler.table.checkpoints.room == 0


def test_a_person_may_have_it_done_anew() -> None:
    driven = running("a")
    say(driven, "one", 1)
    driven.cancel("g.a")
    driven.feed(RetryRequested(task="g.a", fresh=True))
    assert driven.offered() == ["g.a"]
    assert not driven.scheduler.table.checkpoints


@pytest.mark.parametrize(
    ("step", "result", "field"),
    [
        ("", None, "step"),
        ("x" * (MAX_NAME_CHARACTERS + 1), None, "step"),
        ("a", "x" * MAX_RESULT_BYTES, "result"),
        ("a", [[]] * MAX_RESULT_BYTES, "result"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_field(step: str, result: object, field: str) -> None:
    driven = running("a")
    with pytest.raises(InvalidInput) as refused:
        say(driven, step, result)
    assert refused.value.field == field
    assert not driven.scheduler.table.checkpoints


def test_a_result_that_is_nested_too_deep_is_refused() -> None:
    result: object = None
    for _ in range(MAX_NESTING + 1):
        result = [result]
    with pytest.raises(InvalidInput, match="nested"):
        say(running("a"), "a", result)


def test_a_task_has_so_many_steps_and_no_more() -> None:
    driven = running("a")
    table = driven.scheduler.table
    table.checkpoints.restore([("g.a", tuple(Step(str(number), 1, 1.0) for number in range(MAX_STEPS)))], ())
    with pytest.raises(InvalidInput, match=f"at most {MAX_STEPS} steps"):
        say(driven, "another")
    say(driven, "0")  # one that is there goes on
    assert known(driven.scheduler)["0"] is None


def test_a_task_keeps_so_many_bytes_and_no_more() -> None:
    driven = running("a")
    piece = "x" * (MAX_RESULT_BYTES - 100)
    for number in range(MAX_TASK_BYTES // MAX_RESULT_BYTES):
        say(driven, str(number), piece)
    with pytest.raises(InvalidInput, match="together"):
        say(driven, "one more", piece)
    say(driven, "small", 1)


def test_when_all_is_full_those_that_ended_first_give_way_and_then_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_ALL_BYTES", 3 * checkpoints.STEP_BYTES + 100)
    driven = running("a", "b", "c")
    for task in ("g.b", "g.a"):
        say(driven, "one", task=task)
        driven.finish(task, "INVALID")
        driven.cancel(task)
    for step in ("one", "two"):
        say(driven, step, task="g.c")
    assert [known(driven.scheduler, task) for task in ("g.a", "g.b")] == [{"one": None}, {}]
    for step in ("three", "four"):
        say(driven, step, task="g.c")
    assert known(driven.scheduler) == {}
    with pytest.raises(Unavailable):
        say(driven, "five", task="g.c")
    assert driven.replayed().snapshot() == driven.scheduler.snapshot()
