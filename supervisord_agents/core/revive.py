"""Another round for a task that ended without success, and for what ended only because of it."""

from __future__ import annotations

from supervisord_agents.core.dependents import blocks, obstacle
from supervisord_agents.core.events import RetryRequested
from supervisord_agents.core.model import State
from supervisord_agents.core.policy import doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task


def revived(table: TaskTable, event: RetryRequested, now: float) -> None:
    """Block the task again with a fresh budget, then ready what waits for nothing; a task that may not be retried stays."""
    root = table.tasks.get(event.task)
    if root is None or not root.ended or root.state is State.SUCCEEDED:
        return
    # Dependencies in the way of each candidate. Kept over the visits: to look at all of them on each visit would be
    # quadratic for a task that joins many.
    obstacles: dict[str, int] = {}
    again = [root]
    _revive(table, root, now, obstacles)
    for task in again:  # grows meanwhile
        for edge in task.dependents:
            after = edge.after
            if not after.ended or not after.ended_by_dependency:
                continue
            if after.id not in obstacles:
                obstacles[after.id] = sum(map(blocks, after.dependencies))
            if not obstacles[after.id]:
                _revive(table, after, now, obstacles)
                again.append(after)
    for task in again:
        edge_in_the_way = obstacle(task)
        if edge_in_the_way is not None:
            task.ended_by_dependency = True
            table.judge(task, doomed(edge_in_the_way), now)
        elif not task.unmet:
            table.move(task, State.READY, now)


def _revive(table: TaskTable, task: Task, now: float, obstacles: dict[str, int]) -> None:
    for edge in task.dependents:
        if edge.after.state is State.BLOCKED:
            # It waits for others still, and from now on for this one again.
            edge.after.unmet += 1
        elif edge.after.id in obstacles and blocks(edge):
            obstacles[edge.after.id] -= 1
    task.retries = task.lost = 0
    task.ended_at = 0.0
    task.ended_by_dependency = False
    task.unmet = sum(not edge.before.ended for edge in task.dependencies)
    table.move(task, State.BLOCKED, now)
    if task.spec.deadline_s:
        task.deadline_at = now + task.spec.deadline_s
        table.timers.set_deadline(task)
