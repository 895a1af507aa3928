"""Work that one event asks for and that is too much for one turn of the loop: told ends, cancellations, revivals.

An event is still one record and one `handle`. Once `table.step` is set (by a `Paced` event), `handle` looks at no more than about
that many edges; the rest waits here, in order, and every `Advanced` event carries out another step of it. These too are records:
a replay stops and goes on in the same places, and so does a daemon that died in the midst of it.

Between two steps everything is as it would be had the events come in that order one by one, with one exception: the end of a task
may not have been told to all of its dependents yet, so that a dependent may be blocked by nothing. Two things wait until the
backlog is empty, since they would have to know of that: another round of a task, and a snapshot.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from supervisord_agents.core.task import Task

if TYPE_CHECKING:
    from supervisord_agents.core.table import TaskTable

ALL = 1 << 62


class Untold(NamedTuple):
    """A task that ended, and those of its dependents that have not been told: what is linked later knows of the end itself."""

    task: Task
    start: int
    stop: int


class Work:
    """What an event set going; `names` are the full ids of the tasks that it has changed, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        raise NotImplementedError

    def advance(self, table: TaskTable, step: int, now: float) -> None:
        """Look at about `step` tasks and edges."""
        raise NotImplementedError


class Backlog:
    """What is left to do; empty nearly always."""

    def __init__(self) -> None:
        self.untold: deque[Untold] = deque()
        self.works: deque[Work] = deque()

    def __bool__(self) -> bool:
        return bool(self.untold or self.works)
