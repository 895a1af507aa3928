"""Cancelling a task or a graph, with or without all that depends on it."""

from __future__ import annotations

from collections.abc import Sequence

from supervisord_agents.core.attempts import stop
from supervisord_agents.core.backlog import ALL, Work
from supervisord_agents.core.events import CancelRequested
from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Task
from supervisord_agents.errors import ErrorCode


def cancelled(table: TaskTable, event: CancelRequested, now: float) -> None:
    """End what is asked for and has not ended; a second time there is nothing left to do. What is much goes on by `Advanced`."""
    task = table.tasks.get(event.task)
    roots = [task] if task is not None else table.graphs.tasks(event.task)
    failure = Failure(ErrorCode.CANCELLED, event.reason or "cancelled on request", retriable=False)
    if not event.subtree:
        for root in roots:
            cancel(table, root, failure, now, len(roots) > 1 and _within(root))
        return
    wave = Wave(roots, failure)
    wave.advance(table, table.step or ALL, now)
    if not wave.over:
        table.backlog.works.append(wave)


class Wave(Work):
    """Walks from its roots through all dependents, breadth first, visits each task once, and ends those that are open.

    These ends are told to nobody: the wave comes to all dependents itself; unless other work goes on beside it, such as a revival
    that blocks a task again which the wave has passed.
    """

    def __init__(self, roots: Sequence[Task], failure: Failure) -> None:
        super().__init__()
        self._failure = failure
        self._todo = list(roots)
        self._seen = {task.order for task in roots}
        self._roots = len(roots)
        self._place = 0
        self._edge = 0
        self._alone = True

    @property
    def over(self) -> bool:
        return self._place == len(self._todo)

    def advance(self, table: TaskTable, step: int, now: float) -> None:
        told = len(table.ended)
        while step > 0 and not self.over:
            task = self._todo[self._place]
            if not self._edge:
                table.tighten(task)
                self._visit(table, task, now)
            edges = task.dependents[self._edge : self._edge + step]
            self._reach(table, edges)
            step -= len(edges) + 1
            self._edge += len(edges)
            if self._edge == len(task.dependents):
                self._place += 1
                self._edge = 0
        self._alone = self._alone and all(work is self for work in table.backlog.works)
        if self._alone:
            del table.ended[told:]

    def _visit(self, table: TaskTable, task: Task, now: float) -> None:
        reached = self._place >= self._roots or (self._roots > 1 and _within(task))
        if cancel(table, task, self._failure, now, reached):
            self.names.append(task.id)

    def _reach(self, table: TaskTable, edges: Sequence[Edge]) -> None:
        """What undoes a task is not cancelled with it: it would be left done by half."""
        sagas = table.sagas
        for edge in edges:
            after = edge.after
            if after.order not in self._seen and not (sagas.origins and sagas.is_undoing(edge.before, after)):
                self._seen.add(after.order)
                self._todo.append(after)


def _within(root: Task) -> bool:
    """Whether a task that was asked for itself waits for another such: then they are both of one graph."""
    return any(edge.before.graph == root.graph for edge in root.dependencies)


def cancel(table: TaskTable, task: Task, failure: Failure, now: float, by_dependency: bool = False) -> bool:
    """End a task; False if it has ended before."""
    if task.ended:
        return False
    table.change(task)
    # Not the roots of the request: a retry of those brings these back, as it does what their end would have cancelled.
    task.ended_by_dependency = by_dependency
    stop(table, task, ErrorCode.CANCELLED)
    task.retry_at = 0.0
    table.move(task, State.CANCELLED, now, failure)
    return True
