"""Sagas: what had succeeded of a graph that failed is undone once, the last first, whatever happens meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.core import compensations, invariants
from supervisord_agents.core.events import Advanced, Archived, Compensating, Finished, Paced, decode_event
from supervisord_agents.core.model import Compensation, Dependency, Failure, Limits, State, TaskSpec, When, WorkspaceMode
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput
from tests.support.scheduling import POOL, Driven, a_task, always, on_failure

UNDO = Compensation(pool=POOL, input={"argv": ["undo"]}, max_retries=0)
FATAL = Failure("WORKER_FAILED", "no", retriable=False)


@pytest.fixture
def driven() -> Driven:
    return Driven()


def undoable(name: str, *after: str | Dependency, **fields: object) -> TaskSpec:
    return a_task(name, *after, **{"compensate": UNDO, **fields})


def a_failed_saga(driven: Driven) -> None:
    """Three that can be undone succeed, `b` first, a fourth cannot be undone, a fifth fails."""
    driven.submit(undoable("a"), undoable("b"), undoable("c", "b"), a_task("d"), undoable("e", "c", "d", "a"))
    for name in ("b", "d", "a", "c"):
        driven.now += 1.0
        driven.run(f"g.{name}")
    driven.fail("g.e")


def test_what_succeeded_is_undone_the_last_first_and_one_after_the_other(driven: Driven) -> None:
    a_failed_saga(driven)
    assert driven.scheduler.graph_tasks("ug") == ["ug.c", "ug.a", "ug.b"]
    ran = []
    while offered := driven.offered():
        assert len(offered) == 1
        ran += offered
        driven.run(offered[0])
    assert ran == ["ug.c", "ug.a", "ug.b"]
    assert driven.states("ug") == dict.fromkeys("cab", "succeeded")


def test_those_that_ended_at_the_same_moment_are_undone_in_the_order_of_their_ends(driven: Driven) -> None:
    driven.submit(undoable("a"), undoable("b"), undoable("c"), a_task("x"))
    for name in "bca":
        driven.run(f"g.{name}")
    driven.fail("g.x")
    assert driven.scheduler.graph_tasks("ug") == ["ug.a", "ug.c", "ug.b"]


def test_a_compensation_is_run_as_it_says_and_waits_for_what_it_undoes(driven: Driven) -> None:
    undo = Compensation(
        agent="qwen", type="undo", input={"prompt": "undo"}, pool=POOL, timeout_s=7.0, max_retries=2, backoff_s=3.0, profile="p"
    )
    driven.submit(a_task("a", priority=2, compensate=undo), a_task("b", "a"))
    driven.run("g.a")
    driven.fail("g.b")
    spec = driven.task("ug.a").spec
    assert (spec.agent, spec.type, spec.input, spec.timeout_s) == ("qwen", "undo", {"prompt": "undo"}, 7.0)
    assert (spec.max_retries, spec.backoff_s, spec.profile, spec.priority) == (2, 3.0, "p", 2)
    assert driven.task("ug.a").dependency_ids == ["g.a"]
    assert driven.scheduler.sagas.undoes(driven.task("ug.a")) == "g.a"
    assert driven.scheduler.sagas.undoes(driven.task("g.a")) == ""


def test_nothing_is_undone_before_the_last_task_of_the_graph_has_ended(driven: Driven) -> None:
    driven.submit(undoable("a"), a_task("bad"), a_task("slow"))
    driven.run("g.a")
    driven.start("g.slow")
    driven.fail("g.bad")
    assert not driven.scheduler.has_graph("ug")
    driven.finish("g.slow")
    assert driven.scheduler.has_graph("ug")


def test_a_dead_task_begins_it_and_so_does_one_that_failed_by_a_dependency(driven: Driven) -> None:
    driven.submit(undoable("a"), a_task("b", "a", max_retries=1))
    driven.run("g.a")
    driven.run("g.b", "TIMEOUT")
    driven.wait_until_due()
    driven.run("g.b", "TIMEOUT")
    assert driven.state("g.b") is State.DEAD
    assert driven.scheduler.has_graph("ug")
    driven.submit(a_task("x"), graph="h")
    driven.submit(undoable("a"), a_task("b", "a", "h.x"), graph="k")
    driven.run("k.a")
    driven.fail("h.x")
    assert driven.scheduler.has_graph("uk")


def test_what_succeeds_is_not_undone_and_what_is_only_cancelled_is_not_either(driven: Driven) -> None:
    driven.submit(undoable("a"), a_task("b", "a"))
    driven.run("g.a")
    driven.run("g.b")
    driven.submit(undoable("a"), a_task("b", "a"), graph="h")
    driven.run("h.a")
    driven.cancel("h")
    assert driven.scheduler.graphs() == ["g", "h"]


def test_a_failure_that_another_task_answers_is_a_failure_all_the_same(driven: Driven) -> None:
    driven.submit(undoable("a"), a_task("b", "a"), a_task("c", on_failure("b")))
    driven.run("g.a")
    driven.fail("g.b")
    driven.run("g.c")
    assert driven.scheduler.has_graph("ug")


def test_each_is_undone_though_the_one_before_it_could_not_be(driven: Driven) -> None:
    a_failed_saga(driven)
    driven.fail("ug.c")
    driven.run("ug.a")
    driven.run("ug.b", "TIMEOUT")
    assert driven.states("ug") == {"c": "dead", "a": "succeeded", "b": "dead"}


def test_one_that_cannot_be_undone_is_dead_and_says_what_still_stands(driven: Driven) -> None:
    a_failed_saga(driven)
    driven.run("ug.c", Failure("WORKER_FAILED", "no such account", "Ask the bank.", retriable=False))
    failure = driven.task("ug.c").failure
    assert failure is not None
    assert failure.code == "WORKER_FAILED"
    assert failure.message == "g.c is not undone: no such account"
    assert "What g.c did still stands." in failure.hint
    assert "agentctl dlq requeue ug.c" in failure.hint
    assert failure.hint.endswith("Ask the bank.")


def test_a_compensation_is_retried_like_a_task_and_then_dead(driven: Driven) -> None:
    driven.submit(a_task("a", compensate=Compensation(pool=POOL, max_retries=1)), a_task("b", "a"))
    driven.run("g.a")
    driven.fail("g.b")
    driven.run("ug.a", "TIMEOUT")
    assert driven.state("ug.a") is State.BACKING_OFF
    driven.wait_until_due()
    driven.run("ug.a", "TIMEOUT")
    assert driven.state("ug.a") is State.DEAD
    assert "g.a is not undone: gave up after 1 retry" in driven.message("ug.a")
    driven.retry("ug.a")
    driven.run("ug.a")
    assert driven.state("ug.a") is State.SUCCEEDED


def test_a_graph_that_is_being_undone_is_not_run_again(driven: Driven) -> None:
    a_failed_saga(driven)
    with pytest.raises(InvalidInput, match="undone by ug"):
        driven.retry("g.e")
    assert driven.state("g.e") is State.FAILED


def test_nor_is_it_by_another_round_of_what_it_waited_for(driven: Driven) -> None:
    driven.submit(a_task("x"), graph="h")
    driven.submit(undoable("a"), a_task("b", "h.x"), graph="g")
    driven.submit(a_task("y", "h.x"), graph="k")
    driven.run("g.a")
    driven.fail("h.x")
    driven.retry("h.x")
    assert driven.state("g.b") is State.FAILED
    assert driven.state("k.y") is State.BLOCKED


def test_a_graph_of_which_nothing_could_be_undone_runs_again_and_may_be_undone_later(driven: Driven) -> None:
    driven.submit(undoable("a"), a_task("b", "a"))
    driven.fail("g.a")
    assert not driven.scheduler.has_graph("ug")
    driven.retry("g.a")
    driven.run("g.a")
    driven.fail("g.b")
    assert driven.scheduler.graph_tasks("ug") == ["ug.a"]


def test_to_cancel_the_graph_does_not_stop_its_undoing_but_to_cancel_that_does(driven: Driven) -> None:
    a_failed_saga(driven)
    driven.cancel("g")
    driven.cancel("g.a")
    assert driven.states("ug") == {"c": "ready", "a": "blocked", "b": "blocked"}
    driven.cancel("ug.c", subtree=False)
    assert driven.states("ug") == {"c": "cancelled", "a": "ready", "b": "blocked"}
    driven.cancel("ug")
    assert driven.states("ug") == dict.fromkeys("cab", "cancelled")


def test_the_graph_stays_in_memory_until_it_is_undone(driven: Driven) -> None:
    a_failed_saga(driven)
    driven.run("ug.c")
    driven.run("ug.a")
    assert driven.scheduler.to_archive(0, driven.now + 1.0, 100) == []
    driven.run("ug.b")
    driven.feed(Archived(graphs=("g",)))
    assert driven.scheduler.sagas.undoes(driven.task("ug.b")) == "g.b"
    driven.feed(Archived(graphs=("ug",)))
    assert not driven.scheduler.sagas
    assert not driven.scheduler.sagas.origins


def test_a_wrong_compensation_is_refused_by_its_field(driven: Driven) -> None:
    with pytest.raises(InvalidInput) as caught:
        driven.submit(a_task("a"), a_task("b", compensate=Compensation(max_retries=-1)))
    assert caught.value.field == "tasks[1].compensate.max_retries"
    with pytest.raises(InvalidInput) as caught:
        driven.submit(a_task("a", compensate=Compensation(limits=Limits(pids=-1))))
    assert caught.value.field == "tasks[0].compensate.limits.pids"


def test_in_steps_it_begins_when_the_last_has_been_told(driven: Driven) -> None:
    driven.feed(Paced(step=1))
    driven.submit(undoable("a"), a_task("b", "a"), *(a_task(f"c{number}", "b") for number in range(5)))
    driven.run("g.a")
    driven.fail("g.b")
    assert driven.scheduler.busy
    assert not driven.scheduler.has_graph("ug")
    while driven.scheduler.busy:
        driven.feed(Advanced())
    assert driven.scheduler.has_graph("ug")


graphs = st.lists(
    st.tuples(st.booleans(), st.sets(st.integers(0, 5), max_size=2), st.sampled_from(When), st.sampled_from("ssssfc")),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60, deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_exactly_what_succeeded_is_undone_in_reverse_over_a_crash_at_every_point(
    graph: list[tuple[bool, set[int], When, str]], dice: object
) -> None:
    """After every record the daemon may die: what a snapshot or a replay gives goes on to the same end."""
    driven = Driven()
    driven.submit(
        *(
            (undoable if undo else a_task)(f"t{position}", *(Dependency(f"t{at}", when) for at in befores if at < position))
            for position, (undo, befores, when, _) in enumerate(graph)
        )
    )
    succeeded: list[str] = []
    begun = 0
    while offered := driven.offered():
        name = dice.choice(offered)  # type: ignore[attr-defined]
        fate = graph[int(name.partition("t")[2])][3] if name.startswith("g.") else dice.choice("sf")  # type: ignore[attr-defined]
        driven.start(name)
        decisions = driven.cancel(name) if fate == "c" else driven.finish(name, FATAL if fate == "f" else None)
        if fate == "s" and name.startswith("g.") and driven.task(name).spec.compensate:
            succeeded.append(name)
        begun += sum(isinstance(decision, Compensating) for decision in decisions)
        copies = [driven.replayed(), Scheduler.restore(driven.scheduler.snapshot())]
        for copy in copies:
            invariants.check(copy)
            assert copy.snapshot() == driven.scheduler.snapshot()
        driven.scheduler = dice.choice([driven.scheduler, *copies])  # type: ignore[attr-defined]
    states = {driven.state(name) for name in driven.scheduler.graph_tasks("g")}
    due = succeeded if states & {State.FAILED, State.DEAD} else []
    undone = [driven.scheduler.sagas.undoes(driven.task(name)) for name in driven.scheduler.graph_tasks("ug")]
    assert undone == due[::-1]
    assert begun == bool(due)
    ran = [event.task for _, event in map(decode_event, driven.journal) if isinstance(event, Finished)]
    assert [name for name in ran if name.startswith("ug.")] == driven.scheduler.graph_tasks("ug")
    assert set(driven.states("ug").values()) <= {"succeeded", "dead"}


def test_what_undoes_a_task_works_where_the_task_did_unless_it_says_otherwise() -> None:
    limits = Limits(pids=5)
    task = a_task(
        "a", workspace="/w", workspace_mode=WorkspaceMode.COPY, profile="build", limits=limits, compensate=Compensation(agent="x")
    )
    asked = compensations.asked(task)
    assert (asked.agent, asked.workspace, asked.workspace_mode) == ("x", "/w", WorkspaceMode.COPY)
    assert (asked.profile, asked.limits, asked.pool) == ("build", limits, "")
    other = Compensation(workspace="/v", profile="open", limits=Limits(pids=9))
    asked = compensations.asked(a_task("a", workspace="/w", profile="build", limits=limits, compensate=other))
    assert (asked.workspace, asked.workspace_mode, asked.profile, asked.limits.pids) == ("/v", None, "open", 9)
    assert compensations.asked(a_task("a", workspace="/w", compensate=UNDO)).workspace_mode is WorkspaceMode.DIR


def test_always_edges_of_the_graph_itself_are_left_alone(driven: Driven) -> None:
    driven.submit(undoable("a"), a_task("b", "a"), a_task("tidy", always("b")))
    driven.run("g.a")
    driven.fail("g.b")
    assert driven.offered() == ["g.tidy"]
    driven.run("g.tidy")
    assert driven.offered() == ["ug.a"]
