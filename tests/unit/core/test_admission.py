"""What is refused before it is journalled, and how it is named."""

from __future__ import annotations

import math

import pytest

from supervisord_agents.core.events import CancelRequested, RetryRequested, Submitted
from supervisord_agents.core.model import Limits, State, TaskSpec
from supervisord_agents.errors import InvalidInput, NotFound, SupervisorError
from tests.support.scheduling import Driven, a_task, on_failure


@pytest.fixture
def driven() -> Driven:
    return Driven()


def refused(driven: Driven, *specs: TaskSpec, graph: str = "g", key: str = "") -> SupervisorError:
    before = driven.scheduler.snapshot()
    with pytest.raises(InvalidInput) as caught:
        driven.scheduler.check(Submitted(graph=graph, specs=specs, key=key), driven.now)
    assert driven.scheduler.snapshot() == before
    return caught.value


def test_an_empty_graph_is_refused(driven: Driven) -> None:
    assert refused(driven).field == "tasks"


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "a" * 65, "../x", "a\n"])
def test_a_bad_id_is_refused_with_its_position(driven: Driven, name: str) -> None:
    assert refused(driven, a_task("ok"), a_task(name)).field == "tasks[1].id"


@pytest.mark.parametrize("name", ["a", "a-b_C9", "x" * 64])
def test_a_good_id_is_accepted(driven: Driven, name: str) -> None:
    driven.submit(a_task(name))


def test_a_duplicate_id_is_refused_and_the_first_one_named(driven: Driven) -> None:
    error = refused(driven, a_task("a"), a_task("b"), a_task("a"))
    assert error.field == "tasks[2].id"
    assert "tasks[0]" in str(error)


@pytest.mark.parametrize("graph", ["", "a.b", "x" * 65])
def test_a_bad_graph_id_is_refused(driven: Driven, graph: str) -> None:
    assert refused(driven, a_task("a"), graph=graph).field == "graph"


def test_a_graph_id_is_used_once(driven: Driven) -> None:
    driven.submit(a_task("a"), graph="g")
    assert refused(driven, a_task("b"), graph="g").field == "graph"


def test_a_key_is_used_once_and_leads_to_its_graph(driven: Driven) -> None:
    driven.submit(a_task("a"), graph="g", key="k")
    assert driven.scheduler.graph_of_key("k") == "g"
    assert driven.scheduler.graph_of_key("other") is None
    error = refused(driven, a_task("a"), graph="h", key="k")
    assert error.field == "key"
    assert "graph g" in str(error)


def test_an_unknown_dependency_is_refused_with_its_place(driven: Driven) -> None:
    error = refused(driven, a_task("a"), a_task("b"), a_task("c", "a", "nobody"))
    assert error.field == "tasks[2].dependencies[1]"
    assert "'nobody'" in str(error)


def test_an_unknown_full_id_is_refused(driven: Driven) -> None:
    assert refused(driven, a_task("a", "other.a")).field == "tasks[0].dependencies[0]"


def test_an_earlier_task_is_accepted_by_its_full_id_only(driven: Driven) -> None:
    driven.submit(a_task("a"), graph="g1")
    assert refused(driven, a_task("b", "a"), graph="g2").field == "tasks[0].dependencies[0]"
    driven.submit(a_task("b", "g1.a"), graph="g2")
    assert driven.task("g2.b").dependency_ids == ["g1.a"]
    assert driven.task("g1.a").dependent_ids == ["g2.b"]


def test_a_task_that_depends_on_itself_is_refused(driven: Driven) -> None:
    error = refused(driven, a_task("a", "a"))
    assert error.field == "tasks[0].dependencies[0]"
    assert "itself" in str(error)


def test_the_same_dependency_twice_is_refused(driven: Driven) -> None:
    assert refused(driven, a_task("a"), a_task("b", "a", on_failure("a"))).field == "tasks[1].dependencies[1]"


def test_a_cycle_is_refused_and_named(driven: Driven) -> None:
    error = refused(driven, a_task("A", "B"), a_task("B", "C"), a_task("C", "A"))
    assert "A -> B -> C -> A" in str(error)
    assert error.field == "tasks[0].dependencies"


def test_a_chain_of_tens_of_thousands_of_tasks_is_accepted_and_its_end_reaches_all(driven: Driven) -> None:
    count = 30_000  # thirty times as deep as the interpreter recurses
    specs = [TaskSpec(id=f"t{n}", dependencies=(f"t{n + 1}",) if n < count - 1 else ()) for n in range(count)]
    event = Submitted(graph="g", specs=tuple(specs))
    scheduler = driven.scheduler
    scheduler.check(event, 1.0)
    scheduler.handle(event, 1.0)
    assert scheduler.tasks[f"g.t{count - 1}"].rest_s == count
    scheduler.handle(CancelRequested(task=f"g.t{count - 1}", subtree=False), 2.0)
    assert scheduler.counts[State.CANCELLED] == count
    scheduler.handle(RetryRequested(task=f"g.t{count - 1}"), 3.0)
    assert scheduler.counts[State.BLOCKED] == count - 1


@pytest.mark.parametrize("priority", [-1, 10, 1000])
def test_a_priority_outside_0_to_9_is_refused(driven: Driven, priority: int) -> None:
    error = refused(driven, a_task("a", priority=priority))
    assert error.field == "tasks[0].priority"
    assert str(priority) in str(error)


@pytest.mark.parametrize("name", ["timeout_s", "deadline_s", "backoff_s", "estimate_s"])
@pytest.mark.parametrize("value", [-0.001, -1.0, math.nan, math.inf, -math.inf])
def test_a_time_that_is_negative_or_not_finite_is_refused(driven: Driven, name: str, value: float) -> None:
    assert refused(driven, a_task("a"), a_task("b", **{name: value})).field == f"tasks[1].{name}"


@pytest.mark.parametrize("retries", [-1, 101])
def test_max_retries_outside_0_to_100_is_refused(driven: Driven, retries: int) -> None:
    assert refused(driven, a_task("a", max_retries=retries)).field == "tasks[0].max_retries"


@pytest.mark.parametrize("name", ["memory_bytes", "pids", "cpu_percent"])
@pytest.mark.parametrize("value", [-1, 2**62])
def test_a_limit_that_no_kernel_could_set_is_refused(driven: Driven, name: str, value: int) -> None:
    assert refused(driven, a_task("a", limits=Limits(**{name: value}))).field == f"tasks[0].limits.{name}"


def test_texts_that_are_kept_for_ever_are_bounded(driven: Driven) -> None:
    assert refused(driven, a_task("a", type="x" * 65)).field == "tasks[0].type"
    assert refused(driven, a_task("a"), key="x" * 257).field == "key"
    driven.submit(a_task("a"), key="x" * 256)
    with pytest.raises(InvalidInput) as caught:
        driven.cancel("g.a", reason="x" * 1001)
    assert caught.value.field == "reason"
    driven.cancel("g.a", reason="x" * 1000)


def test_the_bounds_themselves_are_accepted(driven: Driven) -> None:
    driven.submit(a_task("a", priority=0, max_retries=0), a_task("b", priority=9, max_retries=100, limits=Limits(pids=5)))


def test_a_long_wrong_value_is_not_repeated_whole(driven: Driven) -> None:
    assert len(str(refused(driven, a_task("x" * 100_000)))) < 300


@pytest.mark.parametrize("event", [CancelRequested(task="g.nobody"), RetryRequested(task="g.nobody"), RetryRequested(task="g")])
def test_cancel_and_retry_of_an_unknown_id_are_not_found(driven: Driven, event: CancelRequested | RetryRequested) -> None:
    driven.submit(a_task("a"))
    with pytest.raises(NotFound) as caught:
        driven.feed(event)
    assert caught.value.field == "task"


def test_retry_of_a_task_that_has_not_ended_is_refused(driven: Driven) -> None:
    driven.submit(a_task("a"))
    with pytest.raises(InvalidInput, match="has not ended, it is ready"):
        driven.retry("g.a")


def test_retry_of_a_task_that_succeeded_is_refused(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.run("g.a")
    with pytest.raises(InvalidInput, match="succeeded"):
        driven.retry("g.a")


def test_retry_of_a_task_whose_dependency_decides_it_again_names_that_dependency(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", on_failure("a"), on_failure("b")))
    driven.fail("g.a")
    with pytest.raises(InvalidInput, match=r"its dependency g\.a failed.*Retry g\.a"):
        driven.retry("g.b")


def test_retry_of_what_is_needed_only_if_another_fails_is_refused_when_that_succeeded(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", on_failure("a")))
    driven.run("g.a")
    with pytest.raises(InvalidInput, match=r"g\.a succeeded"):
        driven.retry("g.b")
