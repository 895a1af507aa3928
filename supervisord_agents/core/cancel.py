"""Cancelling a task or a graph, with or without all that depends on it."""

from __future__ import annotations

from supervisord_agents.core.attempts import stop
from supervisord_agents.core.events import CancelRequested
from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task
from supervisord_agents.errors import ErrorCode


def cancelled(table: TaskTable, event: CancelRequested, now: float) -> None:
    """End what is asked for and has not ended; a second time there is nothing left to do."""
    chosen = _chosen(table, event)
    failure = Failure(ErrorCode.CANCELLED, event.reason or "cancelled on request", retriable=False)
    for task in chosen.values():
        if task.ended:
            continue
        # Not the roots of the request: a retry of those brings these back, as it does what their end would have cancelled.
        task.ended_by_dependency = any(edge.before.id in chosen for edge in task.dependencies)
        stop(table, task, ErrorCode.CANCELLED)
        task.retry_at = 0.0
        table.move(task, State.CANCELLED, now, failure)


def _chosen(table: TaskTable, event: CancelRequested) -> dict[str, Task]:
    if event.task in table.tasks:
        chosen = {event.task: table.tasks[event.task]}
    else:
        chosen = {task.id: task for task in table.graphs.get(event.task, ())}
    if event.subtree:
        queue = list(chosen.values())
        for task in queue:  # grows meanwhile
            for edge in task.dependents:
                if edge.after.id not in chosen:
                    chosen[edge.after.id] = edge.after
                    queue.append(edge.after)
    return chosen
