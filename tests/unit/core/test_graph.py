"""Ids, orders and cycles of a submitted graph."""

from __future__ import annotations

from supervisord_agents.core.graph import dependencies_first, find_cycle, inner_dependencies, name_cycle, normalise
from tests.support.scheduling import a_task


def ids(*names: str) -> list[str]:
    return [spec.id for spec in normalise([a_task(name) for name in names])]


def test_empty_ids_are_filled_by_position() -> None:
    assert ids("", "", "") == ["t1", "t2", "t3"]
    assert ids("a", "", "b", "") == ["a", "t2", "b", "t4"]


def test_an_id_that_the_client_chose_is_skipped() -> None:
    assert ids("", "t1", "", "t3") == ["t2", "t1", "t4", "t3"]


def test_filling_many_ids_into_many_taken_ones_is_linear() -> None:
    names = [""] * 50_000 + [f"t{number}" for number in range(1, 50_001)]
    filled = ids(*names)
    assert len(set(filled)) == 100_000
    assert filled[0] == "t50001"


def test_dependencies_come_first_in_any_order_of_submission() -> None:
    specs = [a_task("join", "left", "right"), a_task("left", "root"), a_task("right", "root"), a_task("root")]
    order = [specs[position].id for position in dependencies_first(inner_dependencies(specs))]
    assert order == ["root", "left", "right", "join"]


def test_dependencies_on_earlier_graphs_are_left_out() -> None:
    assert inner_dependencies([a_task("a", "other.a"), a_task("b", "a", "other.b")]) == [[], [0]]


def test_a_cycle_is_found_and_begins_at_its_first_task() -> None:
    specs = [a_task("x", "A"), a_task("A", "B"), a_task("B", "C"), a_task("C", "A"), a_task("y")]
    cycle = find_cycle(inner_dependencies(specs))
    assert name_cycle([specs[position].id for position in cycle]) == "A -> B -> C -> A"


def test_no_cycle_is_found_where_there_is_none() -> None:
    assert find_cycle([[1], [2], []]) == []


def test_a_cycle_of_a_hundred_thousand_tasks_is_found_and_named_briefly() -> None:
    count = 100_000
    cycle = find_cycle([[(position + 1) % count] for position in range(count)])
    assert len(cycle) == count
    named = name_cycle([f"t{position}" for position in cycle])
    assert named.startswith("t0 -> t1 -> ")
    assert "more) -> " in named
    assert named.endswith(" -> t0")
    assert len(named) < 400
