"""What ends, cancellations and retries mean for the tasks that depend on them."""

from __future__ import annotations

import pytest

from supervisord_agents.core.events import Changed, Stop
from supervisord_agents.core.model import END_STATES, State, When
from supervisord_agents.core.policy import EDGE_RULES
from tests.support.scheduling import Driven, a_task, always, on_failure


@pytest.fixture
def driven() -> Driven:
    return Driven()


def submit_one_of_each(driven: Driven) -> None:
    driven.submit(a_task("x"), a_task("after", "x"), a_task("if_failed", on_failure("x")), a_task("anyway", always("x")))


def test_the_rules_cover_every_edge_and_every_end() -> None:
    assert set(EDGE_RULES) == set(When)
    assert all(set(rules) == END_STATES for rules in EDGE_RULES.values())


def test_a_success_satisfies_on_success_and_always_and_cancels_on_failure(driven: Driven) -> None:
    submit_one_of_each(driven)
    assert driven.states() == {"x": "ready", "after": "blocked", "if_failed": "blocked", "anyway": "blocked"}
    driven.run("g.x")
    assert driven.states() == {"x": "succeeded", "after": "ready", "if_failed": "cancelled", "anyway": "ready"}
    assert driven.message("g.if_failed") == "not needed, g.x succeeded"


def test_a_failure_satisfies_on_failure_and_always_and_fails_on_success(driven: Driven) -> None:
    submit_one_of_each(driven)
    driven.fail("g.x")
    assert driven.states() == {"x": "failed", "after": "failed", "if_failed": "ready", "anyway": "ready"}
    assert driven.code("g.after") == "DEPENDENCY_FAILED"
    assert "g.x" in driven.message("g.after")
    assert "WORKER_FAILED" in driven.message("g.after")


def test_a_dead_task_counts_as_failed(driven: Driven) -> None:
    driven.submit(a_task("x", max_retries=1), a_task("after", "x"), a_task("if_failed", on_failure("x")))
    driven.run("g.x", "WORKER_FAILED")
    assert driven.states() == {"x": "backing_off", "after": "blocked", "if_failed": "blocked"}
    driven.wait_until_due()
    driven.run("g.x", "WORKER_FAILED")
    assert driven.states() == {"x": "dead", "after": "failed", "if_failed": "ready"}
    assert "MAX_RETRIES" in driven.message("g.after")


def test_a_cancellation_satisfies_always_only(driven: Driven) -> None:
    submit_one_of_each(driven)
    driven.cancel("g.x", subtree=False)
    assert driven.states() == {"x": "cancelled", "after": "cancelled", "if_failed": "cancelled", "anyway": "ready"}
    assert "g.x" in driven.message("g.after")


def test_a_failure_goes_down_the_whole_graph(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("rescue", on_failure("c")), a_task("last", "rescue"))
    driven.fail("g.a")
    assert driven.states() == {"a": "failed", "b": "failed", "c": "failed", "rescue": "ready", "last": "blocked"}
    assert "g.b" in driven.message("g.c")
    driven.run("g.rescue")
    assert driven.states()["last"] == "ready"


def test_a_join_waits_for_all(driven: Driven) -> None:
    driven.submit(a_task("join", "a", "b"), a_task("a"), a_task("b"))
    driven.run("g.b")
    assert driven.states()["join"] == "blocked"
    driven.run("g.a")
    assert driven.states()["join"] == "ready"


def test_a_dependency_that_has_ended_already_is_applied_at_once(driven: Driven) -> None:
    driven.submit(a_task("good"), a_task("bad"), a_task("gone"), graph="old")
    driven.run("old.good")
    driven.fail("old.bad")
    driven.cancel("old.gone")
    driven.submit(
        a_task("a", "old.good"),
        a_task("b", "old.bad"),
        a_task("c", on_failure("old.bad")),
        a_task("d", on_failure("old.good")),
        a_task("e", "old.gone"),
        a_task("f", always("old.gone"), "old.good"),
        a_task("g", "b"),
        a_task("h", always("b")),
        a_task("i", "a", "old.good"),
    )
    assert driven.states() == {
        "a": "ready",
        "b": "failed",
        "c": "ready",
        "d": "cancelled",
        "e": "cancelled",
        "f": "ready",
        "g": "failed",
        "h": "ready",
        "i": "blocked",
    }


def test_a_new_task_is_announced_before_it_changes(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.fail("g.a")
    decisions = driven.submit(a_task("b", "g.a"), graph="h")
    assert [(change.before, change.after) for change in decisions if isinstance(change, Changed)] == [
        (None, State.BLOCKED),
        (State.BLOCKED, State.FAILED),
    ]


def test_a_cancelled_subtree_ends_whatever_its_edges(driven: Driven) -> None:
    submit_one_of_each(driven)
    driven.submit(a_task("far", always("g.anyway")), a_task("other"), graph="h")
    driven.start("g.x")
    decisions = driven.cancel("g.x", reason="no longer wanted")
    assert decisions[0] == Stop(task="g.x", attempt=1, code="CANCELLED")
    assert set(driven.states().values()) == {"cancelled"}
    assert driven.states("h") == {"far": "cancelled", "other": "ready"}
    assert driven.code("g.x") == "CANCELLED"
    assert driven.message("g.x") == "no longer wanted"
    assert driven.cancel("g.x") == []


def test_cancelling_a_graph_leaves_what_has_ended(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c"))
    driven.run("g.a")
    driven.start("g.b")
    stops = [decision for decision in driven.cancel("g") if isinstance(decision, Stop)]
    assert stops == [Stop(task="g.b", attempt=1, code="CANCELLED")]
    assert driven.states() == {"a": "succeeded", "b": "cancelled", "c": "cancelled"}
    assert driven.cancel("g") == []


def test_cancelling_an_ended_task_with_its_subtree_ends_the_dependents(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", "b"))
    driven.run("g.a")
    assert driven.cancel("g.a", subtree=False) == []
    driven.cancel("g.a")
    assert driven.states() == {"a": "succeeded", "b": "cancelled", "c": "cancelled"}


def test_a_cancelled_backoff_never_comes_back(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.run("g.a", "WORKER_FAILED")
    driven.cancel("g.a")
    assert driven.scheduler.next_due() is None
    assert driven.wait(1000) == []


def test_a_retry_gives_a_fresh_budget_and_a_new_attempt_number(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=1, deadline_s=1000.0))
    for _ in range(2):
        driven.run("g.a", "WORKER_FAILED")
        driven.wait(2)
    assert driven.state("g.a") is State.DEAD
    driven.now += 2000
    driven.retry("g.a")
    task = driven.task("g.a")
    assert (task.state, task.retries, task.attempt, task.failure, task.ended_at) == (State.READY, 0, 2, None, 0.0)
    assert driven.scheduler.next_due() == driven.now + 1000
    driven.run("g.a", "WORKER_FAILED")
    assert (task.state, task.attempt) == (State.BACKING_OFF, 3)


def test_a_retry_brings_back_what_ended_only_because_of_it(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "a", "e"), a_task("e"), a_task("f", "c", "d"))
    driven.fail("g.a")
    driven.fail("g.e")
    assert driven.states() == dict.fromkeys("abcdef", "failed")
    driven.retry("g.a")
    assert driven.states() == {"a": "ready", "b": "blocked", "c": "blocked", "d": "failed", "e": "failed", "f": "failed"}
    driven.retry("g.e")
    assert driven.states() == {"a": "ready", "b": "blocked", "c": "blocked", "d": "blocked", "e": "ready", "f": "blocked"}
    for name in "abcedf":
        driven.run(f"g.{name}")
    assert driven.states() == dict.fromkeys("abcdef", "succeeded")


def test_a_retry_brings_back_a_cancelled_subtree_but_not_another_request(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", always("b")), a_task("x"), a_task("y", "a", "x"))
    driven.cancel("g.x", subtree=False)
    driven.cancel("g.a")
    driven.retry("g.a")
    assert driven.states() == {"a": "ready", "b": "blocked", "c": "blocked", "x": "cancelled", "y": "cancelled"}


def test_a_retry_does_not_touch_what_failed_by_itself_or_was_cancelled_by_itself(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", always("a")), a_task("c", always("a")))
    driven.fail("g.a")
    driven.fail("g.b")
    driven.cancel("g.c")
    driven.retry("g.a")
    assert driven.states() == {"a": "ready", "b": "failed", "c": "cancelled"}


def test_a_blocked_task_waits_again_for_a_dependency_in_another_round(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), a_task("c", always("a"), "b"))
    driven.fail("g.a")
    driven.retry("g.a")
    driven.run("g.b")
    assert driven.states()["c"] == "blocked"
    driven.run("g.a")
    assert driven.states()["c"] == "ready"


def test_a_ready_task_keeps_its_turn_when_its_dependency_is_retried(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", always("a")))
    driven.fail("g.a")
    driven.retry("g.a")
    assert driven.states() == {"a": "ready", "b": "ready"}
    driven.run("g.b")
    driven.run("g.a")
    assert driven.states() == {"a": "succeeded", "b": "succeeded"}


def test_a_join_over_many_that_failed_because_of_one_comes_back_once(driven: Driven) -> None:
    names = [f"m{number}" for number in range(50)]
    driven.submit(a_task("a"), *(a_task(name, "a") for name in names), a_task("join", *names))
    driven.fail("g.a")
    decisions = driven.retry("g.a")
    assert sum(isinstance(change, Changed) and change.task == "g.join" for change in decisions) == 1
    assert driven.states()["join"] == "blocked"


def test_a_join_met_before_all_it_waits_for_are_back_comes_back_too(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("join", "a", "b"), a_task("b", "a"))
    driven.fail("g.a")
    driven.retry("g.a")
    assert driven.states() == {"a": "ready", "join": "blocked", "b": "blocked"}
    assert driven.task("g.join").unmet == 2
