"""Dead letters: tasks that are dead and that no person has decided about yet.

One leaves the list when it is given another round, or dropped. Until then its graph stays in memory, as far as the configuration
keeps so many, for what is archived is not run again.
"""

from __future__ import annotations

from itertools import islice

from supervisord_agents.core.events import Dropped
from supervisord_agents.core.graphs import Graph
from supervisord_agents.core.model import State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Moment

DROPPED = "dropped"
"""Begins the moment in a task's history which says so."""


def dropped(table: TaskTable, event: Dropped, now: float) -> None:
    """Take them off the list; they stay as dead as they are."""
    reason = f": {event.reason}" if event.reason else ""
    for name in event.tasks:
        if name in table.letters:
            task = table.tasks[name]
            table.change(task)
            del table.letters[name]
            task.remember(Moment(now, State.DEAD, task.attempt, "", f"{DROPPED} by uid {event.client}{reason}"))


def unheld(table: TaskTable, most: int) -> frozenset[str]:
    """The oldest letters beyond so many."""
    return frozenset(islice(table.letters, max(len(table.letters) - most, 0)))


def held(table: TaskTable, graph: Graph, but: frozenset[str]) -> bool:
    """Whether one of the graph's tasks is a letter, but for these."""
    return any(task.state is State.DEAD and task.id in table.letters and task.id not in but for task in graph.tasks)
