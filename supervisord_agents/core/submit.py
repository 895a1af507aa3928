"""A new graph: tasks made, edges laid, remaining paths measured, and what earlier ends have already decided applied."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from supervisord_agents.core.dependents import obstacle
from supervisord_agents.core.events import Submitted
from supervisord_agents.core.graph import dependencies_first, edge_of, inner_dependencies
from supervisord_agents.core.model import END_STATES, State, TaskSpec
from supervisord_agents.core.policy import doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Moment, Task, link, new_task

LENGTHEN_LIMIT = 256
"""Earlier tasks whose remaining path one new graph may lengthen. Beyond it the order among equals is less exact, nothing else:
without it a chain that grows by one graph at a time would cost more with every link."""

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_BLOCKED, _READY, _SUCCEEDED = State.BLOCKED, State.READY, State.SUCCEEDED


def submitted(table: TaskTable, event: Submitted, now: float) -> None:
    """Take up the graph; one that exists already is left as it is."""
    if event.graph in table.graphs:
        return
    if event.key:
        table.keys[event.key] = event.graph
    blocked = (Moment(now, _BLOCKED),)
    ready = (Moment(now, _READY),)
    first = len(table.tasks)
    added = [new_task(event.graph, spec, order, now, event.client) for order, spec in enumerate(event.specs, start=first)]
    connect(table, event.specs, added)
    _measure(table, event.specs, added)
    doomed_by: list[tuple[Task, Edge]] = []
    for task, spec in zip(added, event.specs, strict=True):
        edge = obstacle(task) if task.unmet < len(task.dependencies) else None
        if edge is not None:
            doomed_by.append((task, edge))
        if task.unmet or edge is not None:
            task.history = blocked
        else:
            task.state, task.history = _READY, ready
        if spec.deadline_s:
            task.deadline_at = now + spec.deadline_s
            table.timers.set_deadline(task)
        table.add(task)
        table.announce(task)
    # Only now: an end is told to dependents, which must all be there.
    for task, edge in doomed_by:
        task.ended_by_dependency = True
        table.judge(task, doomed(edge), now)


def connect(table: TaskTable, specs: Sequence[TaskSpec], added: Sequence[Task]) -> None:
    """Lay the edges of one graph's tasks, to one another and to earlier tasks, and count what is unmet."""
    tasks = table.tasks
    by_name: dict[str, Task] = {}
    for spec, task in zip(specs, added, strict=True):
        if spec.dependencies:
            edges = []
            for dependency in spec.dependencies:
                name, when = edge_of(dependency)
                before = tasks.get(name)  # only a full id has a dot: it is never the name of a new task
                if before is None:
                    by_name = by_name or {spec.id: task for spec, task in zip(specs, added, strict=True)}
                    before = by_name[name]
                edges.append(link(before, task, when))
                if before.state not in END_STATES:
                    task.unmet += 1
            task.dependencies = tuple(edges)


def _measure(table: TaskTable, specs: Sequence[TaskSpec], added: Sequence[Task]) -> None:
    """Lengthen the remaining paths of the new tasks, dependents first, then those of the earlier tasks that they wait for."""
    in_order = added
    if _any_waits_for_later(added):
        in_order = [added[position] for position in dependencies_first(inner_dependencies(specs))]
    first = added[0].order
    grown: deque[Task] = deque()
    for task in reversed(in_order):
        for edge in task.dependencies:
            if _lengthen(edge.before, task) and edge.before.order < first:
                grown.append(edge.before)
    visits = LENGTHEN_LIMIT
    while grown and visits:
        visits -= 1
        task = grown.popleft()
        if task.state is _READY:
            table.ready.push(task)
        grown.extend(edge.before for edge in task.dependencies if _lengthen(edge.before, task))


def _any_waits_for_later(tasks: Sequence[Task]) -> bool:
    for task in tasks:
        for edge in task.dependencies:
            if edge.before.order > task.order:
                return True
    return False


def _lengthen(before: Task, after: Task) -> bool:
    """Whether the path through `after` is the longest from `before`; what has succeeded has no path left."""
    path_s = before.estimate_s + after.rest_s
    if path_s <= before.rest_s or before.state is _SUCCEEDED:
        return False
    before.rest_s = path_s
    return True
