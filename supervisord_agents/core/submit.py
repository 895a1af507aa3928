"""A new graph: tasks made, edges laid, remaining paths measured, and what earlier ends have already decided applied."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from supervisord_agents.core.dependents import obstacle
from supervisord_agents.core.events import Submitted
from supervisord_agents.core.graph import dependencies_first, edge_of, full_id, inner_dependencies
from supervisord_agents.core.model import State
from supervisord_agents.core.policy import doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Moment, Task, link

LENGTHEN_LIMIT = 256
"""Earlier tasks whose remaining path one new graph may lengthen. Beyond it the order among equals is less exact, nothing else:
without it a chain that grows by one graph at a time would cost more with every link."""


def submitted(table: TaskTable, event: Submitted, now: float) -> None:
    """Take up the graph; one that exists already is left as it is."""
    if event.graph in table.graphs:
        return
    if event.key:
        table.keys[event.key] = event.graph
    blocked = (Moment(now, State.BLOCKED),)
    ready = (Moment(now, State.READY),)
    added = _make(table, event, now)
    connect(table, added)
    _measure(table, event, added)
    doomed_by: list[tuple[Task, Edge]] = []
    for task in added:
        edge = obstacle(task) if task.unmet < len(task.dependencies) else None
        if edge is not None:
            doomed_by.append((task, edge))
        if task.unmet or edge is not None:
            task.history = blocked
        else:
            task.state, task.history = State.READY, ready
        if task.spec.deadline_s:
            task.deadline_at = now + task.spec.deadline_s
            table.timers.set_deadline(task)
        table.add(task)
        table.announce(task)
    # Only now: an end is told to dependents, which must all be there.
    for task, edge in doomed_by:
        task.ended_by_dependency = True
        table.judge(task, doomed(edge), now)


def connect(table: TaskTable, added: Iterable[Task]) -> None:
    """Lay the edges of one graph's tasks, to one another and to earlier tasks, and count what is unmet."""
    by_name = {task.spec.id: task for task in added}
    for task in by_name.values():
        if not task.spec.dependencies:
            continue
        edges = []
        for name, when in map(edge_of, task.spec.dependencies):
            before = by_name.get(name) or table.tasks[name]
            edges.append(link(before, task, when))
            if not before.ended:
                task.unmet += 1
        task.dependencies = tuple(edges)


def _make(table: TaskTable, event: Submitted, now: float) -> list[Task]:
    graph = event.graph
    return [
        Task(spec=spec, id=full_id(graph, spec.id), graph=graph, submitted_at=now, order=order)
        for order, spec in enumerate(event.specs, start=len(table.tasks))
    ]


def _measure(table: TaskTable, event: Submitted, added: list[Task]) -> None:
    for task in added:
        task.rest_s = task.estimate_s
    grown: deque[Task] = deque()
    for position in reversed(dependencies_first(inner_dependencies(event.specs))):
        task = added[position]
        for edge in task.dependencies:
            before = edge.before
            if _lengthen(before, task) and before.graph != event.graph:
                grown.append(before)
    visits = LENGTHEN_LIMIT
    while grown and visits:
        visits -= 1
        task = grown.popleft()
        if task.state is State.READY:
            table.ready.push(task)
        grown.extend(edge.before for edge in task.dependencies if _lengthen(edge.before, task))


def _lengthen(before: Task, after: Task) -> bool:
    """Whether the path through `after` is the longest from `before`; what has succeeded has no path left."""
    path_s = before.estimate_s + after.rest_s
    if path_s <= before.rest_s or before.state is State.SUCCEEDED:
        return False
    before.rest_s = path_s
    return True
