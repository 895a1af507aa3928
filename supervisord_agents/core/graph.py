"""A submitted graph as positions: ids filled in, dependencies resolved, an order in which dependencies come first, cycles named.

Everything is iterative: a chain of a hundred thousand tasks is a graph like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from supervisord_agents.core.model import Dependency, TaskSpec, When

_ON_SUCCESS = When.ON_SUCCESS
_id_of = attrgetter("id")

_CYCLE_NAMES = 20
"""So many tasks of a cycle are named; a longer one is shortened in the middle."""


def normalise(specs: Sequence[TaskSpec]) -> tuple[TaskSpec, ...]:
    """The specifications with empty ids filled in: `t<position>` from 1, or the next such number that is free."""
    if all(map(_id_of, specs)):
        return tuple(specs)
    taken = {spec.id for spec in specs}
    filled: list[TaskSpec] = []
    number = 0
    for position, spec in enumerate(specs, start=1):
        if not spec.id:
            # Never below a number already given: that keeps this linear, whatever ids the client chose.
            number = max(number + 1, position)
            while f"t{number}" in taken:
                number += 1
            spec = msgspec.structs.replace(spec, id=f"t{number}")
        filled.append(spec)
    return tuple(filled)


def edge_of(dependency: Dependency | str) -> tuple[str, When]:
    """The name and the condition of a dependency; the short form of one is its name alone."""
    if isinstance(dependency, str):
        return dependency, _ON_SUCCESS
    return dependency.task, dependency.when


def inner_dependencies(specs: Sequence[TaskSpec]) -> list[list[int]]:
    """For each task the positions of its dependencies within the graph; those on earlier graphs are left out."""
    positions = {spec.id: position for position, spec in enumerate(specs)}
    inner: list[list[int]] = []
    for spec in specs:
        names = (edge_of(dependency)[0] for dependency in spec.dependencies)
        inner.append([positions[name] for name in names if name in positions])
    return inner


def dependencies_first(inner: Sequence[Sequence[int]]) -> list[int]:
    """All positions, dependencies before dependents (Kahn, "Topological sorting of large networks", 1962).

    Positions on a cycle, or behind one, are missing from the answer.
    """
    if all(before < position for position, befores in enumerate(inner) for before in befores):
        return list(range(len(inner)))
    unmet = [len(befores) for befores in inner]
    dependents: list[list[int]] = [[] for _ in inner]
    for position, befores in enumerate(inner):
        for before in befores:
            dependents[before].append(position)
    ordered = [position for position, count in enumerate(unmet) if not count]
    for before in ordered:
        for position in dependents[before]:
            unmet[position] -= 1
            if not unmet[position]:
                ordered.append(position)
    return ordered


def find_cycle(inner: Sequence[Sequence[int]]) -> list[int]:
    """The positions of one cycle, each waiting for the next and the last for the first; empty if there is none."""
    ordered = dependencies_first(inner)
    if len(ordered) == len(inner):
        return []
    left = set(range(len(inner))).difference(ordered)
    # Each task left waits for another one left, so walking from any of them must come round.
    seen: dict[int, int] = {}
    walk: list[int] = []
    position = min(left)
    while position not in seen:
        seen[position] = len(walk)
        walk.append(position)
        position = next(before for before in inner[position] if before in left)
    cycle = walk[seen[position] :]
    start = cycle.index(min(cycle))
    return cycle[start:] + cycle[:start]


def name_cycle(cycle: Sequence[str]) -> str:
    """`A -> B -> C -> A`: each task waits for the next."""
    names = [*cycle, cycle[0]]
    if len(names) > _CYCLE_NAMES:
        half = _CYCLE_NAMES // 2
        names = [*names[:half], f"({len(names) - 2 * half} more)", *names[-half:]]
    return " -> ".join(names)
