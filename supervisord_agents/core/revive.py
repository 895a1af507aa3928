"""Another round for a task that ended without success, and for what ended only because of it."""

from __future__ import annotations

from supervisord_agents.core.backlog import ALL, Work
from supervisord_agents.core.dependents import blocks, obstacle
from supervisord_agents.core.events import RetryRequested
from supervisord_agents.core.model import State
from supervisord_agents.core.policy import doomed
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Task


def revived(table: TaskTable, event: RetryRequested, now: float) -> None:
    """Block the task again with a fresh budget, then ready what waits for nothing; a task that may not be retried stays."""
    root = table.tasks.get(event.task)
    if table.backlog or root is None or not root.ended or root.state is State.SUCCEEDED or table.sagas.undone_by(root.graph):
        return
    if event.fresh:
        table.checkpoints.forget(root.id)
    revival = Revival(table, root, now)
    revival.advance(table, table.step or ALL, now)
    if not revival.over:
        table.backlog.works.append(revival)


class Revival(Work):
    """First all are blocked again, dependencies before dependents, and only then is what waits for nothing made ready."""

    def __init__(self, table: TaskTable, root: Task, now: float) -> None:
        super().__init__()
        self._again = [root]
        self._place = 0
        self._edge = 0
        self._released = 0
        self._obstacles: dict[str, int] = {}
        """Dependencies in the way of each candidate. Kept over the visits: to look at all of them on each visit would be
        quadratic for a task that joins many. Others may come in between two steps; `_release` sees to those."""
        self._revive(table, root, now)

    @property
    def over(self) -> bool:
        return self._released == len(self._again)

    def advance(self, table: TaskTable, step: int, now: float) -> None:
        while step > 0 and self._place < len(self._again):
            task = self._again[self._place]
            if not self._edge:
                table.tighten(task)
            edges = () if task.ended else task.dependents[self._edge : self._edge + step]
            for edge in edges:
                self._visit(table, edge, now)
            step -= len(edges) + 1
            self._edge += len(edges)
            if task.ended or self._edge == len(task.dependents):
                self._place += 1
                self._edge = 0
        while step > 0 and not self.over:
            self._release(table, self._again[self._released], now)
            self._released += 1
            step -= 1

    def _visit(self, table: TaskTable, edge: Edge, now: float) -> None:
        after = edge.after
        if not after.ended or not after.ended_by_dependency or table.sagas.undone_by(after.graph):
            return
        if after.id not in self._obstacles:
            self._obstacles[after.id] = sum(map(blocks, after.dependencies))
        if not self._obstacles[after.id]:
            self._revive(table, after, now)
            self._again.append(after)

    def _release(self, table: TaskTable, task: Task, now: float) -> None:
        if task.state is not State.BLOCKED:
            return
        edge_in_the_way = obstacle(task)
        if edge_in_the_way is not None:
            table.change(task)
            task.ended_by_dependency = True
            table.judge(task, doomed(edge_in_the_way), now)
        elif not task.unmet:
            table.move(task, State.READY, now)

    def _revive(self, table: TaskTable, task: Task, now: float) -> None:
        for edge in task.dependents:
            if edge.after.state is State.BLOCKED and not table.families.waits(edge.after):
                # It waits for others still, and from now on for this one again.
                edge.after.unmet += 1
            elif edge.after.id in self._obstacles and blocks(edge):
                self._obstacles[edge.after.id] -= 1
        table.change(task)
        task.retries = task.lost = 0
        task.ended_at = 0.0
        task.ended_by_dependency = False
        task.unmet = sum(not edge.before.ended for edge in task.dependencies)
        table.families.again(task)
        table.move(task, State.BLOCKED, now)
        self.names.append(task.id)
        if task.spec.deadline_s:
            task.deadline_at = now + task.spec.deadline_s
            table.timers.set_deadline(task)
