"""Budgets: what a graph may use, what happens when it is used up, and that it never is exceeded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.core import invariants
from supervisord_agents.core.events import Advanced, Archived, BudgetSpent, Paced, PauseRequested, Started, Stop, Submitted, Used
from supervisord_agents.core.model import Budget, Compensation, Failure, State, Usage
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput
from tests.support.scheduling import POOL, Driven, a_task, always


@pytest.fixture
def driven() -> Driven:
    return Driven()


def stops(decisions: list[Any]) -> list[tuple[str, str]]:
    return [(decision.task, decision.code) for decision in decisions if isinstance(decision, Stop)]


def codes(driven: Driven, graph: str = "g") -> dict[str, str]:
    """What each task of a graph ended with, by short id."""
    return {name.partition(".")[2]: driven.code(name) for name in driven.scheduler.graph_tasks(graph)}


# Attempts


def test_when_the_attempts_are_used_up_what_runs_goes_on_and_nothing_more_starts(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), a_task("c"), a_task("d", "a"), budget=Budget(attempts=2))
    driven.start("g.a")
    assert driven.offered() == ["g.b", "g.c"]
    assert stops(driven.start("g.b")) == []
    assert driven.states() == {"a": "running", "b": "running", "c": "failed", "d": "blocked"}
    assert driven.message("g.c") == "the budget of g is used up: 2 of 2 attempts"
    driven.finish("g.a")
    assert driven.states() == {"a": "succeeded", "b": "running", "c": "failed", "d": "failed"}
    driven.finish("g.b")
    assert codes(driven) == {"a": "", "b": "", "c": "BUDGET_EXCEEDED", "d": "BUDGET_EXCEEDED"}


def test_a_retry_is_an_attempt(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=5), budget=Budget(attempts=2))
    driven.run("g.a", "TIMEOUT")
    driven.wait_until_due()
    driven.run("g.a", Failure("TIMEOUT", "late"))
    assert driven.state("g.a") is State.FAILED
    assert driven.message("g.a") == "the budget of g is used up: 2 of 2 attempts; the last failure was TIMEOUT: late"


def test_one_that_waits_for_its_retry_ends_too(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=5), a_task("b"), budget=Budget(attempts=2))
    driven.run("g.a", "TIMEOUT")
    driven.start("g.b")
    assert driven.states() == {"a": "failed", "b": "running"}


def test_what_was_lost_with_the_daemon_or_stopped_by_a_pause_is_given_back(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), budget=Budget(attempts=2))
    driven.start("g.a")
    driven.start("g.b")
    driven.restart()
    assert driven.states() == {"a": "ready", "b": "ready"}
    driven.start("g.a")
    driven.start("g.b")
    driven.feed(PauseRequested(agent="command", stop=True))
    assert driven.states() == {"a": "ready", "b": "ready"}
    assert driven.scheduler.budgets["g"].attempts == 0


def test_cleaning_up_behind_a_graph_costs_an_attempt_like_all_else(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", always("a")), a_task("c", always("b")), budget=Budget(attempts=1))
    driven.run("g.a")
    assert codes(driven) == {"a": "", "b": "BUDGET_EXCEEDED", "c": "BUDGET_EXCEEDED"}


# Tokens, money and time


@pytest.mark.parametrize(
    ("budget", "usage", "why"),
    [
        (Budget(tokens=1000), Usage(800, 200), "1,000 of 1,000 tokens"),
        (Budget(cost_usd=0.5), Usage(1, 1, 0.75), "$0.7500 of $0.5"),
    ],
)
@pytest.mark.parametrize("told", ["finished", "used", "spent"])
def test_when_it_is_used_up_what_runs_is_stopped_and_all_else_ends(
    driven: Driven, budget: Budget, usage: Usage, why: str, told: str
) -> None:
    driven.submit(a_task("a"), a_task("b"), a_task("c"), a_task("d", "b"), a_task("e", always("d")), budget=budget)
    driven.start("g.a")
    driven.start("g.b")
    if told == "finished":
        decisions = driven.finish("g.a", usage=usage)
    elif told == "used":
        decisions = driven.feed(Used(task="g.a", usage=usage))
    else:
        decisions = driven.feed(BudgetSpent(graph="g", usage=usage))
    running = ["g.b"] if told == "finished" else ["g.a", "g.b"]
    assert stops(decisions) == [(name, "BUDGET_EXCEEDED") for name in running]
    ended = dict.fromkeys("abcde", "BUDGET_EXCEEDED") | ({"a": ""} if told == "finished" else {})
    assert codes(driven) == ended
    assert driven.message("g.e") == f"the budget of g is used up: {why}"
    assert driven.replayed().snapshot() == driven.scheduler.snapshot()


def test_below_the_budget_nothing_happens(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), budget=Budget(tokens=1000, cost_usd=1.0))
    driven.start("g.a")
    driven.start("g.b")
    driven.finish("g.a", usage=Usage(500, 499, 0.99))
    driven.feed(BudgetSpent(graph="g", usage=Usage(500, 499, 0.99)))
    assert driven.states() == {"a": "succeeded", "b": "running"}


def test_the_time_counts_from_the_submission_and_ends_what_runs(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), budget=Budget(wall_s=60.0))
    driven.submit(a_task("a"), graph="h")
    driven.start("g.a")
    assert driven.wait(59.0) == []
    assert driven.scheduler.next_due() == 1060.0
    assert stops(driven.wait_until_due()) == [("g.a", "BUDGET_EXCEEDED")]
    assert codes(driven) == {"a": "BUDGET_EXCEEDED", "b": "BUDGET_EXCEEDED"}
    assert driven.message("g.a") == "the budget of g is used up: 60 s since its submission"
    assert driven.state("h.a") is State.READY
    assert driven.scheduler.next_due() is None


def test_a_graph_that_has_ended_in_time_waits_for_nothing(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=0), budget=Budget(wall_s=60.0))
    driven.run("g.a", "TIMEOUT")
    assert driven.scheduler.next_due() is None
    driven.retry("g.a")
    assert driven.scheduler.next_due() == 1060.0
    driven.run("g.a", "TIMEOUT")
    driven.now += 60.0
    with pytest.raises(InvalidInput, match="60 s since its submission"):
        driven.retry("g.a")


# Beside


def test_what_is_over_budget_is_not_retried(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), budget=Budget(attempts=1))
    driven.run("g.a")
    with pytest.raises(InvalidInput, match="budget of g is used up: 1 of 1 attempts"):
        driven.retry("g.b")


def test_another_round_elsewhere_starts_nothing_of_it(driven: Driven) -> None:
    driven.submit(a_task("x"), graph="h")
    driven.submit(a_task("a"), a_task("b", "h.x"), budget=Budget(attempts=1))
    driven.fail("h.x")
    driven.run("g.a")
    driven.retry("h.x")
    driven.run("h.x")
    assert driven.code("g.b") == "BUDGET_EXCEEDED"


def test_a_graph_that_is_undone_is_undone_beyond_its_budget(driven: Driven) -> None:
    driven.submit(a_task("a", compensate=Compensation(pool=POOL)), a_task("b"), budget=Budget(attempts=1))
    driven.run("g.a")
    driven.run("ug.a")
    assert driven.state("ug.a") is State.SUCCEEDED


def test_a_wrong_budget_is_refused_by_its_field(driven: Driven) -> None:
    for field, value in (("tokens", -1), ("wall_s", float("nan")), ("cost_usd", 1e30)):
        with pytest.raises(InvalidInput) as caught:
            driven.submit(a_task("a"), budget=Budget(**{field: value}))  # type: ignore[arg-type]
        assert caught.value.field == f"budget.{field}"


def test_children_draw_on_the_budget_of_the_graph_that_they_come_from(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), budget=Budget(attempts=2))
    driven.start("g.a")
    driven.feed(Submitted(graph="h", specs=(a_task("a"), a_task("b")), parent="g.a", attempt=1, call=1, client="1"))
    driven.start("h.a")
    assert (driven.code("g.b"), driven.code("h.b")) == ("BUDGET_EXCEEDED", "BUDGET_EXCEEDED")
    assert driven.message("h.b") == "the budget of g is used up: 2 of 2 attempts"
    driven.feed(Submitted(graph="k", specs=(a_task("a"),), parent="h.a", attempt=1, call=1, client="1"))
    assert driven.code("k.a") == "BUDGET_EXCEEDED"
    driven.finish("h.a", usage=Usage(5))
    driven.finish("g.a")
    assert driven.scheduler.budgets["g"].usage == Usage(5)
    restored = Scheduler.restore(driven.scheduler.snapshot())
    invariants.check(restored)
    assert restored.budgets.holder("k") == "g"
    driven.feed(Archived(graphs=("h", "g", "k")))
    assert not driven.scheduler.budgets
    assert not driven.scheduler.budgets.holders


def test_in_steps_a_closed_graph_ends_and_no_attempt_is_one_too_many(driven: Driven) -> None:
    driven.feed(Paced(step=2))
    driven.submit(*(a_task(f"t{number}") for number in range(9)), budget=Budget(attempts=3, tokens=10))
    for number in range(2):
        driven.start(f"g.t{number}")
    driven.finish("g.t0", usage=Usage(10))
    assert driven.scheduler.busy
    while driven.scheduler.busy:
        driven.feed(Advanced())
    assert driven.states() == dict.fromkeys((f"t{number}" for number in range(9)), "failed") | {"t0": "succeeded"}
    driven.submit(*(a_task(f"t{number}") for number in range(9)), graph="h", budget=Budget(attempts=1))
    driven.start("h.t0")
    assert driven.offered() == []


bounds = st.builds(Budget, attempts=st.integers(0, 8), tokens=st.integers(0, 12), wall_s=st.sampled_from((0.0, 3.0, 9.0)))


@settings(max_examples=60, deadline=None)
@given(bounds, st.integers(1, 6), st.integers(1, 3), st.randoms(use_true_random=False))
def test_no_budget_is_ever_exceeded(budget: Budget, size: int, slots: int, dice: Any) -> None:
    """Tokens are told of when they are used: at most what the attempts that ran just then have used is beyond the budget."""
    driven = Driven()
    specs = [a_task(f"t{n}", *(always(f"t{at}") for at in range(n) if dice.random() < 0.3)) for n in range(size)]
    driven.submit(*specs, budget=budget)
    starts, most_at_once = 0, 2
    while not all(task.ended for task in driven.scheduler.tasks.values()):
        for offer in driven.scheduler.starts({POOL: slots - len(driven.scheduler.running_tasks())}):
            before = len(driven.scheduler.running_tasks())
            driven.feed(Started(task=offer.task, attempt=offer.attempt, worker="w"))
            starts += len(driven.scheduler.running_tasks()) - before
        for task in driven.scheduler.running_tasks():
            if dice.random() < 0.6 and task.state is State.RUNNING:
                fate = dice.choice((None, Failure("TIMEOUT"), Failure("TIMEOUT", retriable=False)))
                driven.finish(task.id, fate, usage=Usage(dice.randint(0, most_at_once)))
        driven.wait(1.0)
        if dice.random() < 0.2:
            driven.scheduler = dice.choice([driven.replayed(), Scheduler.restore(driven.scheduler.snapshot())])
        account = driven.scheduler.budgets.of("g")
        assert not budget.attempts or starts <= budget.attempts
        if account is not None and budget.tokens:
            assert account.usage.tokens < budget.tokens + most_at_once
    if budget.wall_s:
        assert max(task.ended_at for task in driven.scheduler.tasks.values()) <= 1000.0 + budget.wall_s


def test_what_another_round_elsewhere_brings_back_ends_again_when_all_of_it_had_to_end(driven: Driven) -> None:
    driven.submit(a_task("x"), a_task("y"), graph="h")
    driven.submit(a_task("a"), a_task("b", "h.x", "h.y"), a_task("c", "b"), budget=Budget(tokens=10))
    driven.fail("h.x")
    driven.start("g.a")
    driven.finish("g.a", usage=Usage(10))
    driven.retry("h.x")
    assert driven.states() == {"a": "succeeded", "b": "failed", "c": "failed"}
    assert driven.code("g.b") == "BUDGET_EXCEEDED"
