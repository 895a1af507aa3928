"""A parent's wait for its children, and what the end of an attempt or of a parent means for them.

All of it is done within the event: a family has bounds (core.descent).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from supervisord_agents.core import breakers
from supervisord_agents.core.attempts import failed, running_attempt
from supervisord_agents.core.cancel import cancel
from supervisord_agents.core.events import Yielded
from supervisord_agents.core.families import Family
from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import NO_USAGE, Task
from supervisord_agents.errors import ErrorCode

NOTHING_TO_WAIT_FOR = Failure(
    ErrorCode.INVALID, "the attempt waits for children, and has submitted none", "Submit before each wait.", retriable=False
)
"""Each wait takes at least one child, so that the limit of children is one of waits too."""


def yielded(table: TaskTable, event: Yielded, now: float) -> None:
    """The running attempt ended, to be gone on with when the children that it submitted have ended."""
    task = running_attempt(table, event.task, event.attempt)
    if task is None:
        return
    table.change(task)
    if event.usage != NO_USAGE:
        task.usage = task.usage + event.usage
        table.budgets.count(task, event.usage)
    if table.health:
        breakers.observe(table.health, task.agent, None, now)
    family = table.families.of.get(task.id)
    if family is None or not family.fresh:
        failed(table, task, NOTHING_TO_WAIT_FOR, now)
        return
    family.spent += family.given
    family.given, family.fresh = family.fresh, []
    family.state, family.fail_fast, family.waits = event.state, event.fail_fast, True
    children = list(members(table, family.given))
    family.open = sum(not child.ended for child in children)
    family.hasty = event.fail_fast and any(child.state in (State.FAILED, State.DEAD) for child in children)
    table.move(task, State.BLOCKED, now)


def settle(table: TaskTable, now: float) -> None:
    """Look at every family that something has happened to."""
    stirred = table.families.stirred
    for name in stirred:  # grows meanwhile
        family = table.families.of[name]
        task = table.tasks[name]
        if task.state is State.BLOCKED and family.waits:
            _look(table, task, family, now)
        elif task.ended:
            _part(table, task, family, now)
        elif task.state is not State.RUNNING and family.fresh:
            why = f"the attempt {task.attempt} of {task.id} that submitted it is over"
            _end(table, members(table, family.fresh), why, now)
            family.past += family.fresh
            family.fresh = []
    stirred.clear()


def members(table: TaskTable, graphs: Iterable[str]) -> Iterator[Task]:
    """The tasks of these graphs, in order."""
    for graph in graphs:
        yield from table.graphs.tasks(graph)


def _look(table: TaskTable, task: Task, family: Family, now: float) -> None:
    """Ready a parent whose children have all ended; end the others if it wants that after the first failure."""
    if family.hasty and family.open:
        _end(table, members(table, family.given), f"another child of {task.id} failed", now)
    if not family.open:
        family.waits = family.hasty = False
        table.move(task, State.READY, now)


def _part(table: TaskTable, task: Task, family: Family, now: float) -> None:
    """The parent has ended: its children go with it, unless it succeeded."""
    if task.state is not State.SUCCEEDED:
        _end(table, members(table, [*family.given, *family.fresh]), f"{task.id}, which submitted it, is {task.state}", now)
    family.spent = family.graphs
    family.given, family.fresh, family.state, family.waits = [], [], None, False


def _end(table: TaskTable, tasks: Iterable[Task], why: str, now: float) -> None:
    failure = Failure(ErrorCode.CANCELLED, why, retriable=False)
    for task in tasks:
        cancel(table, task, failure, now)
