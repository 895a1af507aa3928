"""Work in steps: what one event asks for is carried out by several, with the same outcome."""

from __future__ import annotations

import pytest

from supervisord_agents.core.events import (
    Advanced,
    Archived,
    CancelRequested,
    Changed,
    Finished,
    Paced,
    RetryRequested,
    Started,
    Stop,
)
from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import Unavailable
from tests.support.scheduling import POOL, Driven, a_task, always

STEP = 5
WIDTH = 20


@pytest.fixture
def driven() -> Driven:
    driven = Driven()
    driven.feed(Paced(step=STEP))
    return driven


def to_the_end(driven: Driven) -> int:
    """Carry out the backlog; gives the number of steps, each of which does no more than a step's work."""
    steps = 0
    while driven.scheduler.busy:
        assert len(driven.feed(Advanced())) <= 2 * STEP
        steps += 1
    return steps


def a_fan(driven: Driven) -> None:
    fan = [f"b{number}" for number in range(WIDTH)]
    driven.submit(a_task("a"), *(a_task(name, "a") for name in fan), a_task("c", always("b0")), a_task("d", *fan))


def test_a_cancellation_of_many_takes_several_steps_and_ends_all(driven: Driven) -> None:
    a_fan(driven)
    driven.start("g.a")
    first = driven.cancel("g.a", reason="no more")
    assert any(isinstance(decision, Stop) for decision in first)
    assert len(first) <= 2 * STEP
    assert to_the_end(driven) > 1
    assert set(driven.states().values()) == {"cancelled"}
    assert {driven.message(task) for task in driven.scheduler.tasks} == {"no more"}
    assert [task.id for task in driven.scheduler.tasks.values() if not task.ended_by_dependency] == ["g.a"]


def test_nothing_of_a_subtree_becomes_ready_while_it_is_being_cancelled(driven: Driven) -> None:
    a_fan(driven)
    driven.cancel("g.a")
    while driven.scheduler.busy:
        assert driven.offered() == []
        driven.feed(Advanced())
    assert driven.offered() == []


def test_a_small_cancellation_does_not_wait_for_a_large_one(driven: Driven) -> None:
    a_fan(driven)
    driven.submit(a_task("x"), graph="h")
    driven.cancel("g.a")
    driven.cancel("h.x")
    assert driven.scheduler.busy
    assert driven.state("h.x") is State.CANCELLED


def test_a_graph_submitted_meanwhile_is_taken_along(driven: Driven) -> None:
    a_fan(driven)
    driven.cancel("g.a")
    driven.submit(a_task("e", "g.d"), a_task("f", "e"), graph="h")
    to_the_end(driven)
    assert set(driven.states("h").values()) == {"cancelled"}


def test_a_failure_is_told_to_many_in_steps(driven: Driven) -> None:
    a_fan(driven)
    driven.fail("g.a")
    assert driven.scheduler.busy
    assert to_the_end(driven) > 1
    assert driven.states() == {name: "ready" if name == "c" else "failed" for name in driven.states()}


def test_what_is_linked_to_an_end_that_is_still_being_told_hears_of_it_once(driven: Driven) -> None:
    a_fan(driven)
    driven.submit(a_task("other"), graph="other")
    driven.run("g.a")
    assert driven.scheduler.busy
    driven.submit(a_task("x", "g.a", "other.other"), a_task("y", "g.a"), graph="h")
    to_the_end(driven)
    assert driven.states("h") == {"x": "blocked", "y": "ready"}
    driven.run("other.other")
    to_the_end(driven)
    assert driven.states("h")["x"] == "ready"


def test_another_round_and_a_snapshot_have_to_wait(driven: Driven) -> None:
    a_fan(driven)
    driven.cancel("g.a")
    with pytest.raises(Unavailable, match="still being carried out"):
        driven.retry("g.a")
    with pytest.raises(ValueError, match="backlog"):
        driven.scheduler.snapshot()
    to_the_end(driven)
    driven.retry("g.a")


def test_a_replay_stops_where_the_daemon_stopped_and_goes_on(driven: Driven) -> None:
    a_fan(driven)
    driven.cancel("g.a")
    driven.feed(Advanced())
    replayed = driven.replayed()
    assert replayed.busy
    while replayed.busy:
        assert replayed.handle(Advanced(), driven.now) == driven.feed(Advanced())
    assert replayed.snapshot() == driven.scheduler.snapshot()


@pytest.mark.parametrize("what", ["its end", "a cancellation", "a revival"])
def test_a_restored_state_stops_in_the_same_places_though_dependents_are_archived(driven: Driven, what: str) -> None:
    a_fan(driven)
    if what == "a revival":
        driven.fail("g.a")
        to_the_end(driven)
    for number in range(WIDTH - STEP):
        driven.submit(a_task("t", "g.a"), graph=f"h{number}")
        driven.cancel(f"h{number}.t")
        driven.feed(Archived(graphs=(f"h{number}",)))
    restored = Scheduler.restore(driven.scheduler.snapshot())
    event = {
        "its end": Finished(task="g.a", attempt=1),
        "a cancellation": CancelRequested(task="g.a"),
        "a revival": RetryRequested(task="g.a"),
    }[what]
    events = [*([Started(task="g.a", attempt=1, worker="w")] if what == "its end" else []), event, *[Advanced()] * WIDTH]
    for event in events:
        assert restored.handle(event, driven.now) == driven.feed(event)
        assert restored.busy == driven.scheduler.busy
    assert restored.snapshot() == driven.scheduler.snapshot()


def test_many_deadlines_at_once_fire_in_steps(driven: Driven) -> None:
    driven.submit(*(a_task(f"t{number}", deadline_s=10.0) for number in range(WIDTH)))
    decisions = driven.wait(11.0)
    assert 0 < len(decisions) <= STEP
    while (due := driven.scheduler.next_due()) is not None and due <= driven.now:
        decisions += driven.wait(0.0)
    assert [decision.after for decision in decisions if isinstance(decision, Changed)] == [State.FAILED] * WIDTH


def test_without_a_pace_one_event_does_all() -> None:
    driven = Driven()
    a_fan(driven)
    assert len(driven.cancel("g.a")) == WIDTH + 3
    assert not driven.scheduler.busy
    assert driven.scheduler.starts({POOL: 10}) == []


def test_a_revival_of_many_takes_several_steps_and_starts_nothing_before_it_is_over(driven: Driven) -> None:
    a_fan(driven)
    driven.fail("g.a")
    to_the_end(driven)
    driven.run("g.c")
    driven.retry("g.a")
    assert driven.scheduler.busy
    while driven.scheduler.busy:
        blocked = [name for name, state in driven.states().items() if state == "blocked"]
        assert driven.offered() == [] or len(blocked) == WIDTH + 1
        driven.feed(Advanced())
    assert driven.offered() == ["g.a"]
    assert [name for name, state in driven.states().items() if state == "blocked"] == [f"b{n}" for n in range(WIDTH)] + ["d"]


def test_what_fails_while_a_revival_is_under_way_ends_what_waits_for_it(driven: Driven) -> None:
    fan = [f"b{number}" for number in range(WIDTH)]
    driven.submit(a_task("a"), a_task("slow"), *(a_task(name, "a") for name in fan), a_task("join", *fan, "slow"))
    driven.start("g.slow")
    driven.fail("g.a")
    to_the_end(driven)
    driven.retry("g.a")
    assert driven.scheduler.busy
    driven.finish("g.slow", Failure("WORKER_FAILED", "no", retriable=False))
    to_the_end(driven)
    assert driven.state("g.join") is State.FAILED
    assert driven.states()["b0"] == "blocked"


def test_a_graph_that_is_cancelled_while_it_is_run_again_ends() -> None:
    driven = Driven()
    driven.submit(a_task("c", "b"), a_task("b", "a"), a_task("a"))
    driven.cancel("g")
    driven.feed(Paced(step=1))
    driven.retry("g.a")
    driven.cancel("g")
    while driven.scheduler.busy:
        driven.feed(Advanced())
    assert set(driven.states().values()) == {"cancelled"}
