"""What the end of a task means for the tasks that wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from supervisord_agents.core.backlog import ALL, Untold
from supervisord_agents.core.events import Advanced
from supervisord_agents.core.model import State
from supervisord_agents.core.policy import EDGE_RULES, doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Task

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_BLOCKED, _READY = State.BLOCKED, State.READY


def settle(table: TaskTable, now: float) -> None:
    """Tell the dependents of all that ended in this event, and theirs, until nothing more ends, or a step is done."""
    ended = table.ended
    left = table.step or ALL
    for task in ended:  # grows meanwhile
        table.tighten(task)
        edges = task.dependents
        if not edges:
            continue
        if len(edges) <= left:
            left -= len(edges)
            _tell(table, edges, now)
        else:
            _tell(table, edges[:left], now)
            table.backlog.untold.append(Untold(task, left, len(edges)))
            left = 0
    ended.clear()


def advanced(table: TaskTable, event: Advanced, now: float) -> None:
    """Carry out a step of the backlog: ends are told first, then the oldest work goes on."""
    backlog, left = table.backlog, table.step or ALL
    while backlog.untold and left:
        task, start, stop = backlog.untold.popleft()
        told = min(start + left, stop)
        _tell(table, task.dependents[start:told], now)
        left -= told - start
        if told < stop:
            backlog.untold.appendleft(Untold(task, told, stop))
    if backlog.works and left:
        backlog.works[0].advance(table, left, now)
        if backlog.works[0].over:
            backlog.works.popleft()


def _tell(table: TaskTable, edges: Sequence[Edge], now: float) -> None:
    for edge in edges:
        after = edge.after
        if after.state is not _BLOCKED or (table.families.of and table.families.waits(after)):
            continue
        if blocks(edge):
            table.change(after)
            after.ended_by_dependency = True
            table.judge(after, doomed(edge), now)
        else:
            after.unmet -= 1
            if not after.unmet:
                table.move(after, _READY, now)


def obstacle(task: Task) -> Edge | None:
    """The first dependency that has ended such that the task cannot run; None if there is none."""
    for edge in task.dependencies:
        if blocks(edge):
            return edge
    return None


def blocks(edge: Edge) -> bool:
    """Whether the dependency has ended, and not as the edge demands."""
    return edge.before.ended and EDGE_RULES[edge.when][edge.before.state] is not None
