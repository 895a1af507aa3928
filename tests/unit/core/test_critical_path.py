"""Earliest and latest starts by their definitions, and the forecast between its bounds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.core.critical_path import CriticalPath, Times
from supervisord_agents.core.events import PauseRequested, Submitted, Yielded
from supervisord_agents.core.forecast import Forecast, Slot
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import Dependency, TaskSpec, When
from supervisord_agents.core.pauses import Pauses
from supervisord_agents.core.picture import Node, Picture
from tests.support.graphs import graphs
from tests.support.scheduling import POOL, Driven, a_task, always, on_failure

AMPLE = {POOL: 1000}


class Planned:
    """What is reckoned of the graph `g`, by short id."""

    def __init__(self, driven: Driven, workers: Mapping[str, int] = AMPLE, ageing_s: float = 0.0) -> None:
        picture = Picture(driven.now, driven.scheduler.table.placed, driven.scheduler.open_children)
        for _ in picture.take(driven.scheduler.table.graphs.tasks("g")):
            pass
        picture.take_rivals(driven.scheduler.rivals([POOL], 1000))
        self.path = CriticalPath(picture.nodes)
        self.forecast = Forecast(self.path, workers, Pauses(driven.scheduler.pauses), driven.now, ageing_s)
        self.names = [node.id.removeprefix("g.") for node in picture.nodes]
        self.nodes: dict[str, Node] = dict(zip(self.names, picture.nodes, strict=True))
        self.times: dict[str, Times] = dict(zip(self.names, self.path.times, strict=True))
        self.slots: dict[str, Slot | None] = dict(zip(self.names, self.forecast.slots, strict=True))

    @property
    def critical(self) -> list[str]:
        return [self.names[place] for place in self.path.path]

    def starts(self) -> dict[str, float | None]:
        return {name: slot and slot.start for name, slot in self.slots.items()}


@pytest.fixture
def example() -> Driven:
    """That of the research, section 5."""
    driven = Driven()
    driven.submit(
        a_task("A", estimate_s=5),
        a_task("B", "A", estimate_s=10),
        a_task("C", "A", estimate_s=2),
        a_task("D", "B", "C", estimate_s=3),
    )
    return driven


def test_the_example_of_the_research(example: Driven) -> None:
    planned = Planned(example)
    assert planned.critical == ["A", "B", "D"]
    assert planned.path.end == 18
    assert {name: (times.est, times.lst, times.slack) for name, times in planned.times.items()} == {
        "A": (0, 0, 0),
        "B": (5, 5, 0),
        "C": (5, 13, 8),
        "D": (15, 15, 0),
    }
    assert [name for name, times in planned.times.items() if times.critical] == ["A", "B", "D"]
    assert planned.path.bound({POOL: 1}) == 20
    assert planned.starts() == {"A": 0, "B": 5, "C": 5, "D": 15}
    assert planned.forecast.end == 18


def test_one_worker_does_the_longest_path_first(example: Driven) -> None:
    planned = Planned(example, {POOL: 1})
    assert planned.starts() == {"A": 0, "B": 5, "C": 15, "D": 17}
    assert planned.forecast.end == planned.path.bound({POOL: 1}) == 20


def test_what_runs_counts_with_what_is_left_and_what_has_ended_with_its_real_times(example: Driven) -> None:
    example.start("g.A")
    example.now += 4
    planned = Planned(example)
    assert (planned.times["A"].est, planned.times["A"].end, planned.path.end) == (-4, 1, 14)
    example.now += 4
    planned = Planned(example)  # overdue: nothing is left, and never less
    assert (planned.times["A"].end, planned.times["B"].est, planned.path.end) == (0, 0, 13)
    example.finish("g.A")
    example.start("g.B")
    example.now += 2
    planned = Planned(example)
    assert planned.critical == ["A", "B", "D"]
    assert planned.path.end == 11
    assert (planned.times["A"].est, planned.times["A"].end, planned.slots["A"]) == (-10, -2, (-10, -2))
    assert (planned.times["C"].est, planned.times["C"].slack) == (0, 6)
    assert planned.path.work() == {POOL: 8 + 2 + 3}
    example.run("g.C")
    example.finish("g.B")
    example.start("g.D")
    example.now += 3
    example.finish("g.D")
    planned = Planned(example)
    assert (planned.critical, planned.path.end, planned.forecast.end) == (["A", "B", "D"], 0, 0)


def test_a_task_that_is_tried_again_waits_for_its_time(example: Driven) -> None:
    example.run("g.A", "WORKER_FAILED")
    due = example.scheduler.next_due()
    assert due is not None
    planned = Planned(example)
    assert planned.times["A"].est == pytest.approx(due - example.now)
    assert planned.starts()["A"] == planned.times["A"].est
    assert planned.path.end == pytest.approx(due - example.now + 18)


def test_tasks_that_appear_meanwhile_are_in_it(example: Driven) -> None:
    example.submit(a_task("slow", estimate_s=30), graph="other")
    assert Planned(example).path.end == 18
    example.submit(a_task("x", "g.C", estimate_s=1), graph="later")
    assert Planned(example).times["C"].slack == 8
    example.cancel("g.D")
    assert Planned(example).path.end == 15


def test_what_a_graph_waits_for_elsewhere_delays_it() -> None:
    driven = Driven()
    driven.submit(a_task("x", estimate_s=7), a_task("y", "x", estimate_s=5), a_task("z", estimate_s=50), graph="before")
    driven.submit(a_task("a", "before.y", estimate_s=1), a_task("b", estimate_s=2))
    planned = Planned(driven)
    assert planned.critical == ["before.x", "before.y", "a"]
    assert planned.path.end == 13
    assert planned.times["b"].slack == 11
    assert planned.path.work() == {POOL: 3}
    assert planned.forecast.end == 13


def test_children_that_a_task_waits_for_delay_it() -> None:
    driven = Driven()
    driven.submit(a_task("p", estimate_s=3), a_task("q", "p", estimate_s=2))
    driven.start("g.p")
    children = normalise([a_task("a", estimate_s=6), a_task("b", "a", estimate_s=4)])
    driven.feed(Submitted(graph="c", specs=children, parent="g.p", attempt=1, call=1, client="1"))
    driven.feed(Yielded(task="g.p", attempt=1))
    planned = Planned(driven)
    assert planned.critical == ["c.a", "c.b", "p", "q"]
    assert planned.path.end == 15
    assert planned.forecast.end == 15


def test_what_runs_only_after_a_failure_is_not_expected() -> None:
    driven = Driven()
    driven.submit(
        a_task("a", estimate_s=5),
        a_task("mend", on_failure("a"), estimate_s=100),
        a_task("more", "mend", estimate_s=100),
        a_task("clear", always("more"), estimate_s=2),
    )
    planned = Planned(driven)
    assert planned.path.end == 7
    assert planned.critical == ["a", "clear"]
    assert [name for name, times in planned.times.items() if not times.needed] == ["mend", "more"]
    assert planned.forecast.end == 7
    driven.fail("g.a")
    planned = Planned(driven)
    assert planned.path.end == 202
    assert planned.critical == ["a", "mend", "more", "clear"]


def test_others_take_workers_and_come_first_if_they_are_more_urgent(example: Driven) -> None:
    example.submit(a_task("x", estimate_s=6, priority=1), a_task("y", estimate_s=4, priority=9), graph="other")
    example.start("other.x")
    planned = Planned(example, {POOL: 1})
    assert planned.starts() == {"A": 6, "B": 11, "C": 21, "D": 23, "other.x": 0, "other.y": 26}
    assert planned.path.end == 18
    assert planned.forecast.end == 26


def test_age_counts_in_a_forecast_as_it_does_when_tasks_are_started() -> None:
    driven = Driven(ageing_s=10.0)
    driven.submit(a_task("old", priority=6, estimate_s=5))
    driven.now += 50
    driven.submit(a_task("young", priority=4, estimate_s=5), graph="other")
    assert driven.offered(1) == ["g.old"]
    assert Planned(driven, {POOL: 1}, ageing_s=10.0).starts() == {"old": 0, "other.young": 5}


@pytest.mark.parametrize("workers", [{}, {POOL: 0}])
def test_without_workers_it_never_ends(example: Driven, workers: dict[str, int]) -> None:
    planned = Planned(example, workers)
    assert set(planned.slots.values()) == {None}
    assert planned.forecast.end is None
    assert planned.path.bound(workers) == 18


def test_what_is_paused_never_starts(example: Driven) -> None:
    example.submit(a_task("x", estimate_s=6), graph="other")
    example.feed(PauseRequested(agent="command"))
    assert Planned(example).forecast.end is None


def test_a_cycle_does_not_end_and_says_so(example: Driven) -> None:
    planned = Planned(example)
    planned.nodes["A"].befores = ((planned.names.index("D"), When.ON_SUCCESS),)
    path = CriticalPath(list(planned.nodes.values()))
    assert path.cyclic
    assert Forecast(path, AMPLE, Pauses(), 0.0).end is None


def test_ten_thousand_tasks_and_a_chain_of_them() -> None:
    driven = Driven()
    chain = [a_task(f"c{i}", *([f"c{i - 1}"] if i else []), estimate_s=1) for i in range(5_000)]
    wide = [a_task(f"w{i}", "c10", estimate_s=2) for i in range(5_000)]
    driven.scheduler.handle(Submitted(graph="g", specs=(*chain, *wide)), driven.now)
    planned = Planned(driven, {POOL: 10})
    assert planned.path.end == 5_000
    assert len(planned.path.path) == 5_000
    assert planned.forecast.end == 5_000
    assert planned.times["w4"].slack == 5_000 - 13


# By the definitions


def chains(specs: list[TaskSpec]) -> list[list[TaskSpec]]:
    """Every chain of dependencies, by brute force."""
    by_id = {spec.id: spec for spec in specs}
    found = [[spec] for spec in specs]
    for chain in found:  # grows meanwhile
        for edge in chain[0].dependencies:
            assert isinstance(edge, Dependency)
            found.append([by_id[edge.task], *chain])
    return found


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 4))
def test_random_graphs(specs: list[TaskSpec], workers: int) -> None:
    driven = Driven()
    driven.submit(*specs)
    planned = Planned(driven, {POOL: workers})
    lengths = [(chain, sum(spec.estimate_s for spec in chain)) for chain in chains(specs)]
    end = max(length for _, length in lengths)
    assert planned.path.end == end
    for spec in specs:
        times = planned.times[spec.id]
        # The longest chain that ends before it, and the longest that begins with it.
        assert times.est == max(length for chain, length in lengths if chain[-1] is spec) - spec.estimate_s
        assert times.lst == end - max(length for chain, length in lengths if chain[0] is spec)
        assert times.slack == times.lst - times.est >= 0
        through = max(length for chain, length in lengths if spec in chain)
        assert times.critical == (through == end)
    path = [next(spec for spec in specs if spec.id == name) for name in planned.critical]
    assert sum(spec.estimate_s for spec in path) == end
    assert path in chains(specs)
    assert all(planned.times[spec.id].slack == 0 for spec in path)

    work = sum(spec.estimate_s for spec in specs)
    forecast = planned.forecast.end
    assert forecast is not None
    assert end <= planned.path.bound({POOL: workers}) <= forecast <= work
    assert planned.path.bound({POOL: workers}) == max(end, work / workers)
    # Graham, 1969: no list schedule is longer.
    assert forecast <= work / workers + (1 - 1 / workers) * end + 1e-9
    if workers == 1:
        assert forecast == work
    slots = {name: slot for name, slot in planned.slots.items() if slot is not None}
    assert len(slots) == len(specs)
    for spec in specs:
        slot = slots[spec.id]
        assert slot.end - slot.start == spec.estimate_s
        assert slot.start >= planned.times[spec.id].est
        assert all(slots[edge.task].end <= slot.start for edge in spec.dependencies if isinstance(edge, Dependency))
    for moment in itertools.chain.from_iterable(slots.values()):
        assert sum(slot.start <= moment < slot.end for slot in slots.values()) <= workers


@settings(max_examples=50, deadline=None)
@given(graphs(), st.integers(1, 3))
def test_a_forecast_comes_true(specs: list[TaskSpec], workers: int) -> None:
    """Run as long as expected, by the scheduler itself, the graph ends when it was forecast to, however often one asks."""
    driven = Driven(ageing_s=7.0)
    driven.submit(*specs)
    began = driven.now
    expected = Planned(driven, {POOL: workers}, ageing_s=7.0).forecast.end
    ends: dict[str, float] = {}
    while not all(task.ended for task in driven.scheduler.tasks.values()):
        for name in driven.offered(workers - len(ends)):
            driven.start(name)
            ends[name] = driven.now + driven.task(name).estimate_s
        planned = Planned(driven, {POOL: workers}, ageing_s=7.0)
        assert driven.now - began + (planned.forecast.end or 0.0) == expected
        driven.now = min(ends.values())
        for name in [name for name, end in ends.items() if end == driven.now]:
            driven.finish(name)
            del ends[name]
    assert driven.now - began == expected
