"""Ended graphs leave memory: when they may, what stays of them, and what depends on them afterwards."""

from __future__ import annotations

import pytest

from supervisord_agents.core import invariants
from supervisord_agents.core.events import Archived, Submitted
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import Past, State
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput, NotFound
from tests.support.scheduling import Driven, a_task, always, on_failure


@pytest.fixture
def driven() -> Driven:
    return Driven()


def archive(driven: Driven, keep: int = 0) -> list[str]:
    """Archive what may go; gives the graphs."""
    graphs = [graph.id for graph in driven.scheduler.to_archive(keep, driven.now + 1.0, 100)]
    driven.feed(Archived(graphs=tuple(graphs)))
    return graphs


def test_a_graph_goes_when_its_last_task_has_ended(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), key="k")
    driven.run("g.a")
    assert archive(driven) == []
    driven.run("g.b")
    assert archive(driven) == ["g"]
    assert driven.scheduler.tasks == {}
    assert driven.scheduler.counts[State.SUCCEEDED] == 0
    assert driven.scheduler.graph_of_key("k") is None
    assert driven.scheduler.resolve("g") == []


def test_a_graph_stays_while_something_open_waits_for_it(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.submit(a_task("b", "g.a"), a_task("c", "b"), graph="h")
    driven.run("g.a")
    assert archive(driven) == []
    assert archive(driven) == []
    driven.run("h.b")
    assert archive(driven) == ["g"]
    assert driven.task("h.b").dependency_ids == ["g.a"]
    driven.run("h.c")
    assert archive(driven) == ["h"]
    assert driven.scheduler.table.stubs == {}


def test_the_first_ended_goes_first_and_so_many_stay(driven: Driven) -> None:
    for graph in ("g1", "g2", "g3"):
        driven.submit(a_task("a"), graph=graph)
    for graph in ("g2", "g3", "g1"):
        driven.now += 1.0
        driven.run(f"{graph}.a")
    chosen = driven.scheduler.to_archive(2, 0.0, 100)
    assert [graph.id for graph in chosen] == ["g2"]
    chosen = driven.scheduler.to_archive(100, driven.now, 100)
    assert [graph.id for graph in chosen] == ["g2", "g3"]


def test_a_graph_that_was_given_another_round_is_not_forgotten(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.fail("g.a")
    driven.retry("g.a")
    driven.feed(Archived(graphs=("g",)))
    assert driven.state("g.a") is State.READY


@pytest.mark.parametrize(
    ("past", "edge", "expected"),
    [
        (Past("old.a", State.SUCCEEDED), "old.a", State.READY),
        (Past("old.a", State.FAILED, "WORKER_FAILED"), "old.a", State.FAILED),
        (Past("old.a", State.FAILED, "WORKER_FAILED"), on_failure("old.a"), State.READY),
        (Past("old.a", State.CANCELLED, "CANCELLED"), "old.a", State.CANCELLED),
        (Past("old.a", State.CANCELLED, "CANCELLED"), always("old.a"), State.READY),
    ],
)
def test_a_new_graph_may_depend_on_what_is_archived(driven: Driven, past: Past, edge: object, expected: State) -> None:
    specs = normalise([a_task("b", edge)])  # type: ignore[arg-type]
    assert driven.scheduler.unknown(specs) == {"old.a"}
    with pytest.raises(InvalidInput, match=r"unknown dependency 'old\.a'"):
        driven.scheduler.check(Submitted(graph="g", specs=specs), 1.0)
    driven.feed(Submitted(graph="g", specs=specs, past=(past,)))
    assert driven.state("g.b") is expected
    assert driven.task("g.b").dependency_ids == ["old.a"]
    restored = Scheduler.restore(driven.scheduler.snapshot())
    invariants.check(restored)
    assert restored.snapshot() == driven.scheduler.snapshot()
    assert driven.replayed().snapshot() == driven.scheduler.snapshot()


def test_what_failed_for_an_archived_task_cannot_be_helped_by_a_retry(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.submit(a_task("b", "g.a"), a_task("c"), graph="h")
    driven.fail("g.a")
    assert archive(driven) == ["g"]
    with pytest.raises(InvalidInput, match=r"its dependency g\.a failed"):
        driven.retry("h.b")
    with pytest.raises(NotFound):
        driven.retry("g.a")


def test_orders_go_on_after_what_is_gone(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"))
    driven.run("g.a")
    driven.run("g.b")
    archive(driven)
    restored = Scheduler.restore(driven.scheduler.snapshot())
    for scheduler in (driven.scheduler, restored):
        scheduler.handle(Submitted(graph="h", specs=normalise([a_task("c")])), 1.0)
        assert scheduler.tasks["h.c"].order == 2


def test_a_task_with_many_archived_dependents_forgets_their_edges(driven: Driven) -> None:
    driven.submit(a_task("root"))
    driven.run("g.root")
    driven.submit(a_task("open"), graph="other")
    for number in range(100):
        driven.submit(a_task("t", "g.root"), graph=f"h{number}")
        driven.run(f"h{number}.t")
    for number in range(100):
        driven.scheduler.handle(Archived(graphs=(f"h{number}",)), driven.now)
        assert len(driven.task("g.root").dependents) <= 2 * (100 - number)
    assert driven.task("g.root").dependent_ids == []
