"""What `make simulate` shows holds on every commit; and the simulator itself is right."""

from __future__ import annotations

from math import inf
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulate import makespan, plot
from benchmarks.simulate.expectation import Expectation, show
from benchmarks.simulate.graphs import Graph, random_graphs, realistic_graphs, share
from benchmarks.simulate.scenarios import SCENARIOS, a_task, most_at_once, simulated
from benchmarks.simulate.workers import BROKEN, Work
from supervisord_agents.core.model import State


@pytest.mark.parametrize("title", SCENARIOS)
def test_every_expectation_is_held(title: str) -> None:
    assert [found for found in SCENARIOS[title]() if not found.held] == []


@pytest.fixture(scope="module")
def made() -> list[makespan.Made]:
    return list(makespan.all_made([*random_graphs(6), *realistic_graphs()]))


def test_makespans_are_near_the_bound_and_never_under_it(made: list[makespan.Made]) -> None:
    assert len({one.graph.name for one in made if one.graph.family == "realistic"}) == 20
    for one in made:
        assert one.graph.bound_s <= one.graph.tight_bound_s <= one.makespan_s + 1e-6, one
    assert all(found.held for found in makespan.compared(made))


def test_the_longest_path_first_beats_the_other_orders(made: list[makespan.Made]) -> None:
    of = {
        order: median(one.ratio for one in made if one.order == order)
        for order in (makespan.OURS, makespan.PRIORITY, makespan.FIFO)
    }
    assert of[makespan.OURS] < of[makespan.PRIORITY] < of[makespan.FIFO]


def test_one_order_gives_one_history() -> None:
    first, again = (list(makespan.all_made(list(random_graphs(1)))) for _ in range(2))
    assert first == again


def test_the_plot_has_a_dot_for_each_graph_and_order(made: list[makespan.Made]) -> None:
    drawn = plot.svg(made)
    assert drawn.count("<circle") == len(made)
    assert "nan" not in drawn


def test_the_bounds_of_a_graph_with_a_barrier() -> None:
    names = [f"b{number}" for number in range(3)]
    after: dict[str, tuple[str, ...]] = {"a": (), **dict.fromkeys(names, ("a",)), "c": tuple(names)}
    graph = Graph("fan", "fork-join", 2, dict.fromkeys(after, 10.0), after)
    assert (graph.critical_path_s, graph.bound_s, graph.tight_bound_s) == (30.0, 30.0, 35.0)
    assert makespan.makespan_s(graph, makespan.OURS) == 40.0


@given(have=st.integers(1, 30), count=st.integers(1, 30))
def test_a_group_is_shared_out_whole(have: int, count: int) -> None:
    group = [str(number) for number in range(have)]
    shares = [share(group, place, count) for place in range(count)]
    assert all(shares)
    assert {name for part in shares for name in part} == set(group)


def test_a_pool_never_runs_more_than_it_has_workers_and_idles_for_nothing() -> None:
    world = simulated([a_task() for _ in range(10)], {"standard": 3}, overhead_s=1.0)
    assert most_at_once(world.runs) == 3
    assert world.makespan_s == 4 * 31.0
    assert {run.begun - run.start for run in world.runs} == {1.0}


def test_a_worker_that_hangs_is_freed_by_the_timeout() -> None:
    graph = [a_task("stuck", timeout_s=50.0, max_retries=1), a_task("next")]
    world = simulated(graph, {"standard": 1}, lambda task: Work(inf if task.short_id == "stuck" else 30.0), overhead_s=0.0)
    assert [(run.task, run.end) for run in world.runs][:2] == [("stuck", 50.0), ("next", 80.0)]
    assert world.task("stuck").state is State.DEAD


def test_an_attempt_that_fails_is_seen_by_the_core() -> None:
    world = simulated([a_task("t", max_retries=2)], {"standard": 1}, lambda task: Work(1.0, BROKEN if task.attempt < 3 else None))
    assert (len(world.runs), world.task("t").state) == (3, State.SUCCEEDED)


def test_a_table_tells_what_is_not_held(capsys: pytest.CaptureFixture[str]) -> None:
    assert show("good", [Expectation("this", "1", "1")])
    assert not show("bad", [Expectation("this", "1", "1"), Expectation("that", "1", "2", held=False)])
    assert "NO" in capsys.readouterr().out
