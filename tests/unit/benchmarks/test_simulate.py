"""What `make simulate` shows holds on every commit; and the simulator itself is right."""

from __future__ import annotations

import random
from math import inf
from statistics import median

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulate import makespan, plot
from benchmarks.simulate.expectation import Expectation, show
from benchmarks.simulate.graphs import FAMILIES, Graph, random_graphs, realistic_graphs, share
from benchmarks.simulate.scenarios import SCENARIOS, a_task, most_at_once, simulated
from benchmarks.simulate.workers import BROKEN, Dice, Work, Workers, default_rules, fixed
from benchmarks.simulate.world import World
from supervisord_agents.core import invariants
from supervisord_agents.core.breakers import Breaker
from supervisord_agents.core.model import State
from supervisord_agents.core.placement import AgentRule


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
    assert drawn.count("no types") == len(FAMILIES)
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
    world = simulated([a_task() for _ in range(10)], fixed({"standard": 3}), overhead_s=1.0)
    assert most_at_once(world.runs) == 3
    assert world.makespan_s == 4 * 31.0
    assert {run.begun - run.start for run in world.runs} == {1.0}


def test_a_worker_that_hangs_is_freed_by_the_timeout() -> None:
    graph = [a_task("stuck", timeout_s=50.0, max_retries=1), a_task("next")]
    world = simulated(graph, fixed({"standard": 1}), lambda task: Work(inf if task.short_id == "stuck" else 30.0), overhead_s=0.0)
    assert [(run.task, run.end) for run in world.runs][:2] == [("stuck", 50.0), ("next", 80.0)]
    assert world.task("stuck").state is State.DEAD


def test_an_attempt_that_fails_is_seen_by_the_core() -> None:
    world = simulated(
        [a_task("t", max_retries=2)], fixed({"standard": 1}), lambda task: Work(1.0, BROKEN if task.attempt < 3 else None)
    )
    assert (len(world.runs), world.task("t").state) == (3, State.SUCCEEDED)


def test_a_table_tells_what_is_not_held(capsys: pytest.CaptureFixture[str]) -> None:
    assert show("good", [Expectation("this", "1", "1")])
    assert not show("bad", [Expectation("this", "1", "1"), Expectation("that", "1", "2", held=False)])
    assert "NO" in capsys.readouterr().out


AGENTS = {
    "capped": AgentRule(max_running=2),
    "paced": AgentRule(starts_per_minute=20.0),
    "shaky": AgentRule(breaker=Breaker(failures=3, open_s=60.0)),
    "free": AgentRule(),
}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000_000), family=st.sampled_from(sorted(FAMILIES)))
def test_whatever_fails_or_hangs_all_ends_and_no_limit_is_passed(seed: int, family: str) -> None:
    dice = random.Random(seed)
    after = FAMILIES[family](dice)
    rules = msgspec.structs.replace(default_rules(), agents=AGENTS)
    agents = {name: dice.choice(list(AGENTS)) for name in after}
    graph = [
        a_task(
            name,
            waits,
            pool=dice.choice(list(rules.pools)),
            seconds=dice.uniform(1.0, 60.0),
            agent=agents[name],
            priority=dice.randrange(10),
            timeout_s=120.0,
            deadline_s=dice.choice((0.0, 0.0, 2000.0)),
            max_retries=dice.randrange(4),
        )
        for name, waits in after.items()
    ]
    world = World(Workers(rules), Dice(seed, spread=0.5, failing=0.2, hanging=0.05))
    world.submit(graph)
    world.run()

    invariants.check(world.scheduler)
    assert all(task.ended for task in world.scheduler.tasks.values())
    for name, pool in rules.pools.items():
        assert most_at_once([run for run in world.runs if run.pool == name]) <= pool.max_workers
    assert most_at_once([run for run in world.runs if agents[run.task] == "capped"]) <= 2
    ends = {run.task: run.end for run in world.runs}
    for run in world.runs:
        assert most_at_once([other for other in world.runs if other.task == run.task]) == 1
        assert all(ends[name] <= run.start for name in after[run.task])
