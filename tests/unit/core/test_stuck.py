"""Whether everything stands still, and what is said to hold it."""

from __future__ import annotations

import pytest

from supervisord_agents.core import invariants
from supervisord_agents.core.events import Advanced, Finished, Paced, PauseRequested, ResumeRequested, Submitted
from supervisord_agents.core.model import State, When
from supervisord_agents.core.pauses import Scope
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.stuck import STEP, Hold, Kind, blocked_holds, ready_holds, standing
from supervisord_agents.core.task import link
from tests.support.scheduling import POOL, Driven, a_task

WORKERS = {POOL: 2, "other": 1}


@pytest.fixture
def driven() -> Driven:
    found = Driven()
    found.submit(a_task("a"), a_task("b", "a"), a_task("c", "b"))
    return found


def blocked(scheduler: Scheduler) -> list[Hold]:
    return [hold for hold in blocked_holds(scheduler) if hold is not None]


def test_nothing_stands_still_while_something_runs_or_is_tried_again_or_all_has_ended(driven: Driven) -> None:
    assert not standing(Scheduler())
    assert standing(driven.scheduler)  # nobody has started it
    driven.start("g.a")
    assert not standing(driven.scheduler)
    driven.finish("g.a", "WORKER_FAILED")
    assert driven.state("g.a") is State.BACKING_OFF
    assert not standing(driven.scheduler)
    driven.wait_until_due()
    for name in ("g.a", "g.b", "g.c"):
        assert standing(driven.scheduler)
        driven.run(name)
    assert not standing(driven.scheduler)
    assert driven.scheduler.pending == 0


def test_a_deadline_does_not_make_anything_go_on() -> None:
    driven = Driven()
    driven.submit(a_task("a", deadline_s=60))
    assert driven.scheduler.next_due() is not None
    assert standing(driven.scheduler)


def test_what_is_left_over_from_an_event_is_waited_for() -> None:
    driven = Driven()
    driven.feed(Paced(step=1))
    driven.submit(a_task("a"), *(a_task(f"b{number}", "a") for number in range(5)), a_task("z"))
    driven.run("g.a")
    assert driven.scheduler.busy
    assert not standing(driven.scheduler)
    while driven.scheduler.busy:
        driven.feed(Advanced())
    assert standing(driven.scheduler)


@pytest.mark.parametrize(
    ("workers", "room", "expected"),
    [
        (WORKERS, WORKERS, [Hold(Kind.NOT_STARTED, POOL)]),
        (WORKERS, {POOL: 0}, None),  # the pool waits: a sandbox could not be made just now, or the last worker is still ending
        ({POOL: 0}, {POOL: 0}, [Hold(Kind.NO_WORKERS, POOL)]),
        ({}, {}, [Hold(Kind.NO_POOL, POOL)]),
    ],
)
def test_what_holds_ready_tasks(
    driven: Driven, workers: dict[str, int], room: dict[str, int], expected: list[Hold] | None
) -> None:
    assert ready_holds(driven.scheduler, workers, room, driven.now) == expected
    assert blocked(driven.scheduler) == []  # behind the ready one


def test_a_pause_holds_and_is_counted_once_over_all_pools(driven: Driven) -> None:
    driven.submit(a_task("x", pool="other"), a_task("y", agent="qwen"), graph="h")
    driven.feed(PauseRequested(agent="command"))
    held = Hold(Kind.PAUSE, "agent command", 2, Scope(agent="command"))
    assert ready_holds(driven.scheduler, WORKERS, WORKERS, driven.now) == [held, Hold(Kind.NOT_STARTED, POOL)]
    driven.feed(PauseRequested(agent="qwen"))
    assert ready_holds(driven.scheduler, WORKERS, WORKERS, driven.now) == [
        held,
        Hold(Kind.PAUSE, "agent qwen", 1, Scope(agent="qwen")),
    ]
    driven.feed(ResumeRequested(everything=True))
    kinds = [hold.kind for hold in ready_holds(driven.scheduler, WORKERS, WORKERS, driven.now) or []]
    assert kinds == [Kind.NOT_STARTED, Kind.NOT_STARTED]


def test_a_task_that_waits_for_nothing(driven: Driven) -> None:
    driven.start("g.a")
    driven.task("g.b").unmet += 1  # its count is wrong: the end of `a` does not wake it
    driven.scheduler.handle(Finished(task="g.a", attempt=1), driven.now)
    assert standing(driven.scheduler)
    assert ready_holds(driven.scheduler, WORKERS, WORKERS, driven.now) == []
    assert blocked(driven.scheduler) == [Hold(Kind.FORGOTTEN, "g.b")]
    with pytest.raises(invariants.InvariantBroken):
        invariants.check(driven.scheduler)


def test_a_cycle_is_named_from_wherever_one_walks(driven: Driven) -> None:
    first, last = driven.task("g.a"), driven.task("g.c")
    driven.scheduler.table.ready.discard(first)
    driven.scheduler.counts[State.READY] -= 1
    driven.scheduler.counts[State.BLOCKED] += 1
    first.state, first.unmet = State.BLOCKED, 1
    first.dependencies = (link(last, first, When.ON_SUCCESS),)
    driven.scheduler.handle(Submitted(graph="h", specs=(a_task("x", "g.b"),)), driven.now)
    assert standing(driven.scheduler)
    assert blocked(driven.scheduler) == [Hold(Kind.CYCLE, "g.a -> g.c -> g.b -> g.a", 3)]


def test_very_many_tasks_are_looked_at_in_steps() -> None:
    driven = Driven()
    count = 3 * STEP
    specs = (a_task("t0"), *(a_task(f"t{number}", f"t{number - 1}") for number in range(1, count)))
    driven.scheduler.handle(Submitted(graph="g", specs=specs), driven.now)
    looks = list(blocked_holds(driven.scheduler))
    assert looks
    assert set(looks) == {None}
