"""What a running task may submit: how deep, how many, and nothing that would wait for an ancestor.

Each limit counts what this round of a task has made: children of attempts that ended without a wait are not counted again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from supervisord_agents.core.attempts import running_attempt
from supervisord_agents.core.children import members
from supervisord_agents.core.events import Submitted
from supervisord_agents.core.graph import edge_of, name_cycle
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task
from supervisord_agents.errors import ErrorCode, InvalidInput

LEAST_DEADLINE_S = 0.001
LOOKED_AT = 10_000
"""Tasks that a new child would wait for, directly or not; one that waits for more is refused."""


class Limits(NamedTuple):
    """Of children."""

    depth: int
    """Generations below a task that a client submitted."""
    children: int
    """Of one task."""
    descendants: int
    """Of one task that a client submitted."""


def until(spec: TaskSpec, parent: Task, now: float) -> TaskSpec:
    """The specification with a deadline no later than the parent's, and so than that of all its ancestors."""
    if not parent.deadline_at:
        return spec
    left_s = max(parent.deadline_at - now, LEAST_DEADLINE_S)
    return msgspec.structs.replace(spec, deadline_s=min(spec.deadline_s or left_s, left_s))


def check_limits(table: TaskTable, parent: Task, count: int, limits: Limits) -> None:
    """Raise InvalidInput if the task may not have `count` more children."""
    families = table.families
    depth = families.depth(parent) + 1
    if depth > limits.depth:
        raise InvalidInput(
            f"these tasks would be {depth} generations below what a client submitted, the limit is {limits.depth}",
            field="tasks",
            hint="Do the work in the task itself, or raise tasks.max_depth.",
        )
    own = _made(table, parent)
    if own + count > limits.children:
        raise InvalidInput(
            f"{parent.id} would have {own + count} children, the limit is {limits.children}",
            field="tasks",
            hint="Give each more to do, or raise tasks.max_children.",
        )
    top = _top(table, parent)
    below = sum(_made(table, task) for task in _with_descendants(table, top))
    if below + count > limits.descendants:
        raise InvalidInput(
            f"{top.id} would have {below + count} descendants, the limit is {limits.descendants}",
            field="tasks",
            hint="Give each more to do, or raise tasks.max_descendants.",
        )


def check_parent(table: TaskTable, event: Submitted) -> None:
    """Raise InvalidInput unless the running attempt asks, with names that are new to it, and nothing would wait for itself."""
    parent = running_attempt(table, event.parent, event.attempt)
    if parent is None:
        raise InvalidInput(
            f"attempt {event.attempt} of {event.parent} is not running: only that may submit children of it",
            field="parent",
            code=ErrorCode.CONFLICT,
        )
    family = table.families.of.get(parent.id)
    names = {task.short_id for task in members(table, family.fresh if family is not None else ())}
    for position, spec in enumerate(event.specs):
        if spec.id in names:
            raise InvalidInput(f"this attempt has submitted a task {spec.id} already", field=f"tasks[{position}].id")
    _check_waits(table, event, parent)
    _check_reach(table, event, parent)


def _check_reach(table: TaskTable, event: Submitted, parent: Task) -> None:
    """A task is given the outputs of its dependencies: a child's must be such as its parent, or its family, was given or made."""
    top = _top(table, parent)
    given = {spec.id for spec in event.specs} | set(parent.dependency_ids)
    for position, spec in enumerate(event.specs):
        for index, dependency in enumerate(spec.dependencies):
            name = edge_of(dependency)[0]
            before = table.tasks.get(name)
            if name not in given and (before is None or before is top or _top(table, before) is not top):
                raise InvalidInput(
                    f"{parent.id} may have a child depend on others that it submits, on what it depends on itself, and on what "
                    f"was submitted under {top.id}",
                    field=f"tasks[{position}].dependencies[{index}]",
                )


def _top(table: TaskTable, task: Task) -> Task:
    """The ancestor that a client submitted."""
    return [task, *table.families.ancestors(task, table.tasks)][-1]


def _made(table: TaskTable, task: Task) -> int:
    family = table.families.of.get(task.id)
    return sum(len(table.graphs.tasks(graph)) for graph in family.graphs) if family is not None else 0


def _with_descendants(table: TaskTable, top: Task) -> Iterator[Task]:
    todo = [top]
    for task in todo:  # grows meanwhile
        yield task
        family = table.families.of.get(task.id)
        if family is not None:
            todo += members(table, family.graphs)


def _check_waits(table: TaskTable, event: Submitted, parent: Task) -> None:
    """The graph itself has no cycle; a parent may wait for every child, and each ancestor for its own."""
    line = [parent, *table.families.ancestors(parent, table.tasks)]
    behind: dict[int, Task | None] = {}
    """What was reached, by order, and from where."""
    for position, spec in enumerate(event.specs):
        for index, dependency in enumerate(spec.dependencies):
            before = table.tasks.get(edge_of(dependency)[0])
            if before is None or before.order in behind:
                continue
            field = f"tasks[{position}].dependencies[{index}]"
            met = _meets(table, before, {task.order for task in line}, behind, field)
            if met is None:
                continue
            way: list[str] = []
            link: Task | None = met
            while link is not None:
                way.append(link.id)
                link = behind[link.order]
            above = [task.id for task in line[: line.index(met)]]
            cycle = name_cycle([spec.id, *way[::-1], *above[::-1]])
            raise InvalidInput(f"a child would wait for what may wait for it: {cycle}", field=field)


def _meets(table: TaskTable, start: Task, line: set[int], behind: dict[int, Task | None], field: str) -> Task | None:
    """The first task of the line that `start` waits for, or may: also by its children, and after another round of what ended."""
    behind[start.order] = None
    todo = [start]
    for task in todo:  # grows meanwhile
        if task.order in line:
            return task
        if task.state is State.SUCCEEDED:
            continue
        family = table.families.of.get(task.id)
        befores = [edge.before for edge in task.dependencies if edge.before.order >= 0]
        for before in (*befores, *members(table, family.graphs if family is not None else ())):
            if before.order not in behind:
                behind[before.order] = task
                todo.append(before)
        if len(behind) > LOOKED_AT:
            raise InvalidInput(f"it would wait for more than {LOOKED_AT} tasks", field=field, hint="Depend on fewer.")
    return None
