"""Children of a running task: limits, waits without a worker, what becomes of them when the parent's attempt or round is over."""

from __future__ import annotations

import pytest

from supervisord_agents.core import invariants
from supervisord_agents.core.descent import Limits, until
from supervisord_agents.core.events import Archived, Decision, Stop, Submitted, Used, Yielded
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import Budget, Failure, State, TaskSpec, Usage
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput
from tests.support.scheduling import Driven, a_task, always

NO = Failure("WORKER_FAILED", "no", retriable=False)


class Family(Driven):
    """A task `g.p` that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.submit(a_task("p", max_retries=1))
        self.start("g.p")

    def bear(self, *specs: TaskSpec, graph: str = "c", parent: str = "g.p") -> list[Decision]:
        self.calls += 1
        attempt = self.task(parent).attempt
        return self.feed(
            Submitted(graph=graph, specs=normalise(specs), parent=parent, attempt=attempt, call=self.calls, client="1")
        )

    def yield_(self, task: str = "g.p", state: object = None, fail_fast: bool = False) -> list[Decision]:
        return self.feed(Yielded(task=task, attempt=self.task(task).attempt, state=state, fail_fast=fail_fast))

    def given(self, task: str = "g.p") -> tuple[object, dict[str, str]]:
        state, children = self.scheduler.given(self.task(task))
        return state, {child.short_id: str(child.state) for child in children}


@pytest.fixture
def family() -> Family:
    return Family()


def test_a_waiting_parent_holds_no_slot_and_goes_on_with_what_its_children_came_to(family: Family) -> None:
    family.bear(a_task("a"), a_task("b", "a"))
    family.yield_(state={"phase": 2})
    assert family.state("g.p") is State.BLOCKED
    assert family.scheduler.running("pool") == 0
    family.run("c.a")
    family.fail("c.b")
    assert (family.state("g.p"), family.task("g.p").retries) == (State.READY, 0)
    assert family.given() == ({"phase": 2}, {"a": "succeeded", "b": "failed"})
    family.start("g.p")
    assert family.task("g.p").attempt == 2
    family.finish("g.p")
    assert family.given() == (None, {})
    assert family.replayed().snapshot() == family.scheduler.snapshot()


def test_all_of_it_outlives_the_daemon(family: Family) -> None:
    family.bear(a_task("a"), a_task("b"))
    family.yield_(state=[1])
    family.run("c.a")
    family.scheduler = Scheduler.restore(family.scheduler.snapshot())
    assert family.state("g.p") is State.BLOCKED
    family.run("c.b")
    assert family.state("g.p") is State.READY
    assert family.given() == ([1], {"a": "succeeded", "b": "succeeded"})


def test_children_that_have_ended_already_are_waited_for_no_longer(family: Family) -> None:
    family.bear(a_task("a"))
    family.run("c.a")
    family.yield_()
    assert family.state("g.p") is State.READY


def test_a_wait_for_nothing_is_the_end(family: Family) -> None:
    family.bear(a_task("a"))
    family.run("c.a")
    family.yield_()
    family.start("g.p")
    family.yield_()
    assert (family.state("g.p"), family.code("g.p")) == (State.FAILED, "INVALID")


def test_with_fail_fast_the_first_failure_ends_the_others(family: Family) -> None:
    family.bear(a_task("a"), a_task("b"), a_task("c"))
    family.start("c.b")
    family.yield_(fail_fast=True)
    decisions = family.fail("c.a")
    assert [decision.task for decision in decisions if isinstance(decision, Stop)] == ["c.b"]
    assert family.states("c") == {"a": "failed", "b": "cancelled", "c": "cancelled"}
    assert family.state("g.p") is State.READY


def test_a_cancelled_child_ends_no_other(family: Family) -> None:
    family.bear(a_task("a"), a_task("b"))
    family.yield_(fail_fast=True)
    family.cancel("c.a")
    assert (family.state("c.b"), family.state("g.p")) == (State.READY, State.BLOCKED)


@pytest.mark.parametrize("how", ["cancel", "failure", "deadline", "graph"])
def test_open_children_go_with_a_parent_that_ends_without_success(how: str) -> None:
    family = Family()
    family.submit(a_task("p", deadline_s=50.0), graph="h")
    family.start("h.p")
    family.bear(a_task("a"), a_task("b"), parent="h.p")
    family.start("c.a")
    family.bear(a_task("x"), graph="d", parent="c.a")
    family.yield_("c.a")
    if how != "failure":
        family.yield_("h.p")
    match how:
        case "cancel":
            family.cancel("h.p")
        case "graph":
            family.cancel("h")
        case "deadline":
            family.wait(60.0)
        case "failure":
            family.finish("h.p", NO)
    assert {*family.states("c").values(), *family.states("d").values()} == {"cancelled"}
    assert "submitted it" in family.message("d.x")
    assert family.replayed().snapshot() == family.scheduler.snapshot()


def test_children_of_a_parent_that_succeeded_go_on(family: Family) -> None:
    family.bear(a_task("a"))
    family.finish("g.p")
    family.run("c.a")
    assert family.state("c.a") is State.SUCCEEDED


@pytest.mark.parametrize("how", ["failure", "restart"])
def test_an_attempt_without_a_wait_takes_its_children_along_and_the_next_begins_behind_the_last_wait(how: str) -> None:
    family = Family()
    family.bear(a_task("a"), graph="c1")
    family.yield_(state="behind a")
    family.run("c1.a")
    family.start("g.p")
    family.bear(a_task("b"), graph="c2")
    if how == "failure":
        family.finish("g.p", "WORKER_FAILED")
    else:
        family.restart()
    assert (family.states("c2"), family.states("c1")) == ({"b": "cancelled"}, {"a": "succeeded"})
    assert family.given() == ("behind a", {"a": "succeeded"})


def test_another_round_counts_its_own_children_only(family: Family) -> None:
    limits = Limits(depth=1, children=2, descendants=2)
    family.bear(a_task("a"))
    family.yield_(state=1)
    family.run("c.a")
    family.start("g.p")
    family.finish("g.p", NO)
    family.retry("g.p")
    assert family.given() == (None, {})
    assert family.state("c.a") is State.SUCCEEDED
    family.start("g.p")
    family.scheduler.check_children(family.task("g.p"), 2, limits)


def test_a_dependency_that_is_run_again_does_not_end_a_wait(family: Family) -> None:
    family.submit(a_task("d"), a_task("q", always("d")), graph="h")
    family.fail("h.d")
    family.start("h.q")
    family.bear(a_task("a"), parent="h.q")
    family.yield_("h.q")
    family.retry("h.d")
    family.run("h.d")
    assert family.state("h.q") is State.BLOCKED
    family.run("c.a")
    assert family.state("h.q") is State.READY


def test_only_the_running_attempt_may_submit(family: Family) -> None:
    family.finish("g.p", "WORKER_FAILED")
    late = Submitted(graph="c", specs=(a_task("a"),), parent="g.p", attempt=1)
    with pytest.raises(InvalidInput, match=r"attempt 1 of g\.p is not running") as caught:
        family.feed(late)
    assert caught.value.code == "CONFLICT"
    family.wait_until_due()
    family.start("g.p")
    with pytest.raises(InvalidInput, match=r"attempt 1 of g\.p is not running"):
        family.feed(late)


def test_a_request_that_is_made_again_is_known(family: Family) -> None:
    family.bear(a_task("a"))
    assert family.scheduler.families.graph_of_call("g.p", 1, 1) == "c"
    assert family.scheduler.families.graph_of_call("g.p", 1, 2) == ""
    with pytest.raises(InvalidInput, match="has submitted a task a already"):
        family.bear(a_task("b"), a_task("a"), graph="d")


def test_what_would_wait_for_itself_is_refused_and_named(family: Family) -> None:
    with pytest.raises(InvalidInput, match=r"a -> g\.p -> a") as caught:
        family.bear(a_task("b"), a_task("a", "b", "g.p"))
    assert caught.value.field == "tasks[1].dependencies[1]"
    family.submit(a_task("after", always("g.p")), a_task("later", always("after")), graph="h")
    with pytest.raises(InvalidInput, match=r"a -> h\.later -> h\.after -> g\.p -> a"):
        family.bear(a_task("a", "h.later"))
    # By way of another parent, which may wait for its child.
    family.bear(a_task("a"), a_task("u"))
    family.start("c.a")
    family.start("c.u")
    family.bear(a_task("v", "c.a"), parent="c.u", graph="k")
    with pytest.raises(InvalidInput, match=r"w -> c\.u -> k\.v -> c\.a -> w"):
        family.bear(a_task("w", "c.u"), parent="c.a", graph="e")
    # A grandchild and its grandparent.
    with pytest.raises(InvalidInput, match=r"x -> g\.p -> c\.a -> x"):
        family.bear(a_task("x", "g.p"), parent="c.a", graph="d")


def test_a_child_depends_on_nothing_that_its_family_was_not_given(family: Family) -> None:
    family.submit(a_task("secret"), graph="theirs")
    family.run("theirs.secret")
    refusals = []
    for name in ("theirs.secret", "theirs.none", "g.p"):
        with pytest.raises(InvalidInput, match=r"tasks\[0\].dependencies\[0\]") as caught:
            family.bear(a_task("a", always(name)))
        refusals.append(caught.value.message.replace(name, ""))
    assert refusals[0] == refusals[1]  # nor does it learn what there is
    # What it depends on itself, its other children, and those of its children.
    family.submit(a_task("given"), graph="before")
    family.run("before.given")
    family.submit(a_task("q", "before.given"), graph="h")
    family.start("h.q")
    family.bear(a_task("a", "before.given"), a_task("b", "a"), parent="h.q", graph="hc")
    family.run("hc.a")
    family.bear(a_task("c", "hc.a"), parent="h.q", graph="hd")
    family.start("hc.b")
    family.bear(a_task("d", "hc.a"), parent="hc.b", graph="he")


def test_generations_children_and_descendants_are_limited(family: Family) -> None:
    limits = Limits(depth=2, children=3, descendants=4)
    check, parent = family.scheduler.check_children, family.task("g.p")
    with pytest.raises(InvalidInput, match="would have 4 children, the limit is 3"):
        check(parent, 4, limits)
    family.bear(a_task("a"), a_task("b"))
    family.start("c.a")
    family.bear(a_task("x"), graph="d", parent="c.a")
    with pytest.raises(InvalidInput, match=r"g\.p would have 5 descendants, the limit is 4"):
        check(family.task("c.a"), 2, limits)
    family.start("d.x")
    with pytest.raises(InvalidInput, match="3 generations below"):
        check(family.task("d.x"), 1, limits)
    family.finish("g.p", "WORKER_FAILED")  # they are cancelled, and count no more
    family.wait_until_due()
    family.start("g.p")
    check(family.task("g.p"), 3, limits)


def test_children_are_as_urgent_as_what_waits_for_them_and_end_with_its_deadline(family: Family) -> None:
    family.submit(a_task("p", priority=1, deadline_s=100.0), graph="h")
    family.submit(*(a_task(f"o{number}", priority=4) for number in range(3)), graph="other")
    family.start("h.p")
    family.now += 40.0
    family.bear(until(a_task("a", priority=8), family.task("h.p"), family.now), parent="h.p")
    assert (family.task("c.a").urgency, family.task("c.a").priority) == (1, 8)
    assert family.offered(1) == ["c.a"]
    assert family.task("c.a").deadline_at == family.task("h.p").deadline_at
    # What becomes more urgent while it waits hands that on.
    family.yield_("h.p")
    family.submit(a_task("now", "h.p", priority=0), graph="last")
    assert family.task("c.a").urgency == 0


def test_children_stay_in_memory_for_as_long_as_an_ancestor_is_open(family: Family) -> None:
    family.bear(a_task("a"))
    family.yield_()
    family.run("c.a")
    assert family.scheduler.to_archive(0, family.now + 1, 100) == []
    family.feed(Archived(graphs=("c",)))
    family.start("g.p")
    family.finish("g.p")
    assert {graph.id for graph in family.scheduler.to_archive(0, family.now + 1, 100)} == {"c", "g"}
    family.feed(Archived(graphs=("g",)))
    assert family.scheduler.families.parent(family.task("c.a")) == "g.p"
    family.feed(Archived(graphs=("c",)))
    assert not family.scheduler.families.births


def test_what_an_attempt_used_before_its_wait_counts_against_the_budget() -> None:
    driven = Driven()
    driven.submit(a_task("p"), budget=Budget(tokens=100))
    driven.start("g.p")
    driven.feed(Submitted(graph="c", specs=(a_task("x"),), parent="g.p", attempt=1, call=1))
    driven.feed(Yielded(task="g.p", attempt=1, usage=Usage(60, 40)))
    assert (driven.code("g.p"), driven.code("c.x")) == ("BUDGET_EXCEEDED", "BUDGET_EXCEEDED")


def test_an_attempt_that_waits_has_worked(family: Family) -> None:
    family.submit(a_task("bad", max_retries=0), graph="h")
    family.run("h.bad", "WORKER_FAILED")
    assert family.scheduler.table.health
    family.bear(a_task("a"))
    family.yield_()
    assert not family.scheduler.table.health


def test_a_budget_is_kept_for_as_long_as_somebody_draws_on_it() -> None:
    driven = Driven()
    driven.submit(a_task("p"), budget=Budget(tokens=100))
    driven.start("g.p")
    driven.feed(Submitted(graph="c", specs=(a_task("x"),), parent="g.p", attempt=1, call=1))
    driven.start("c.x")
    driven.finish("g.p")
    assert driven.scheduler.to_archive(0, driven.now + 1, 100) == []
    driven.feed(Archived(graphs=("g",)))
    driven.feed(Used(task="c.x", usage=Usage(100)))
    assert driven.code("c.x") == "BUDGET_EXCEEDED"


def test_a_parent_that_waits_for_its_children_waits_for_no_dependency_after_a_restart() -> None:
    driven = Driven()
    driven.submit(a_task("a"), a_task("p", always("a")))
    driven.fail("g.a")
    driven.start("g.p")
    driven.feed(Submitted(graph="c", specs=(a_task("x"),), parent="g.p", attempt=1, call=1))
    driven.feed(Yielded(task="g.p", attempt=1))
    driven.retry("g.a")
    restored = Scheduler.restore(driven.scheduler.snapshot())
    invariants.check(restored)
    assert restored.tasks["g.p"].unmet == driven.task("g.p").unmet == 0
