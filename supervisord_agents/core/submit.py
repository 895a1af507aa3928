"""A new graph: tasks made, edges laid, paths and inherited priorities found, what earlier ends have already decided applied."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from supervisord_agents.core.archive import stub
from supervisord_agents.core.attempts import running_attempt
from supervisord_agents.core.children import members
from supervisord_agents.core.dependents import obstacle
from supervisord_agents.core.events import Submitted
from supervisord_agents.core.families import Birth
from supervisord_agents.core.graph import dependencies_first, edge_of, inner_dependencies
from supervisord_agents.core.model import END_STATES, State, TaskSpec, When
from supervisord_agents.core.policy import doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Moment, Task, link, new_task

LENGTHEN_LIMIT = 256
"""Earlier tasks whose remaining path or priority one new graph may raise. Beyond it the order is less exact, nothing else:
without it a chain that grows by one graph at a time would cost more with every link."""

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_READY, _BLOCKED, _SUCCEEDED = State.READY, State.BLOCKED, State.SUCCEEDED


def submitted(table: TaskTable, event: Submitted, now: float) -> None:
    """Take up the graph; one that exists already is left as it is."""
    if event.graph in table.graphs or (event.parent and running_attempt(table, event.parent, event.attempt) is None):
        return
    blocked = (Moment(now, _BLOCKED),)
    ready = (Moment(now, _READY),)
    for past in event.past:
        if past.task not in table.tasks and past.task not in table.stubs:
            table.stubs[past.task] = stub(past)
    first = table.next_order
    added = [new_task(event.graph, spec, order, now, event.client) for order, spec in enumerate(event.specs, start=first)]
    in_order: Sequence[Task] = added
    if connect(table, event.specs, added):
        in_order = [added[position] for position in dependencies_first(inner_dependencies(event.specs))]
    _measure(table, in_order, first, table.tasks.get(event.parent))
    table.add_graph(event.graph, added, event.key)
    table.sagas.add(event.graph, event.specs)
    _record_birth(table, event)
    table.budgets.open(event, now)
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
        table.change(task)
        task.ended_by_dependency = True
        table.judge(task, doomed(edge), now)


def _record_birth(table: TaskTable, event: Submitted) -> None:
    parent = table.tasks.get(event.parent)
    if parent is not None:
        table.change(parent)
        depth = table.families.depth(parent) + 1
        table.families.born(event.graph, Birth(parent.id, event.attempt, event.call, depth))


def connect(table: TaskTable, specs: Sequence[TaskSpec], added: Sequence[Task]) -> bool:
    """Lay the edges of one graph's tasks, to one another and to earlier tasks, and count what is unmet.

    Gives whether a task waits for a later one of the graph.
    """
    forward = False
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
                    before = by_name.get(name)
                    if before is None:
                        edges.append(_refer(table, name, task, when))
                        continue
                    forward |= before.order > task.order
                edges.append(link(before, task, when))
                if before.state not in END_STATES:
                    task.unmet += 1
            task.dependencies = tuple(edges)
    return forward


def _refer(table: TaskTable, name: str, task: Task, when: When) -> Edge:
    """An edge to an archived task."""
    before = table.stubs[name]
    before.unmet += 1
    return Edge(before, task, when)


def _measure(table: TaskTable, in_order: Sequence[Task], first: int, parent: Task | None) -> None:
    """Lengthen the remaining paths of the new tasks and hand on their priorities, dependents first, then the same of the earlier
    tasks that they wait for. A parent counts as what waits for each of its children."""
    grown: deque[Task] = deque()
    for task in reversed(in_order):
        if parent is not None:
            _inherit(table, task, parent)
        for edge in task.dependencies:
            if _inherit(table, edge.before, task) and edge.before.order < first:
                grown.append(edge.before)
    visits = LENGTHEN_LIMIT
    while grown and visits:
        visits -= 1
        task = grown.popleft()
        if task.state is _READY:
            table.ready.push(task)
        grown.extend(edge.before for edge in task.dependencies if _inherit(table, edge.before, task))
        family = table.families.of.get(task.id)
        if family is not None and not task.ended:
            grown.extend(child for child in members(table, family.graphs) if _inherit(table, child, task))


def _inherit(table: TaskTable, before: Task, after: Task) -> bool:
    """Whether the path through `after` is the longest from `before`, or it is more urgent; what has succeeded needs neither.

    Inheritance keeps an urgent task from waiting behind others for what it needs itself (L. Sha, R. Rajkumar, J. P. Lehoczky,
    "Priority Inheritance Protocols", 1990).
    """
    path_s = before.estimate_s + after.rest_s
    if (path_s <= before.rest_s and after.urgency >= before.urgency) or before.state is _SUCCEEDED:
        return False
    if table.watched:
        table.change(before)
    before.rest_s = max(path_s, before.rest_s)
    before.urgency = min(after.urgency, before.urgency)
    return True
