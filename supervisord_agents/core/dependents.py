"""What the end of a task means for the tasks that wait for it."""

from __future__ import annotations

from supervisord_agents.core.model import State
from supervisord_agents.core.policy import EDGE_RULES, doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Task

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_BLOCKED, _READY = State.BLOCKED, State.READY


def settle(table: TaskTable, now: float) -> None:
    """Tell the dependents of all that ended in this event, and theirs, until nothing more ends."""
    ended = table.ended
    for task in ended:  # grows meanwhile
        for edge in task.dependents:
            after = edge.after
            if after.state is not _BLOCKED:
                continue
            if blocks(edge):
                after.ended_by_dependency = True
                table.judge(after, doomed(edge), now)
            else:
                after.unmet -= 1
                if not after.unmet:
                    table.move(after, _READY, now)
    ended.clear()


def obstacle(task: Task) -> Edge | None:
    """The first dependency that has ended such that the task cannot run; None if there is none."""
    for edge in task.dependencies:
        if blocks(edge):
            return edge
    return None


def blocks(edge: Edge) -> bool:
    """Whether the dependency has ended, and not as the edge demands."""
    return edge.before.ended and EDGE_RULES[edge.when][edge.before.state] is not None
