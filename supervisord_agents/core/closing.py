"""The end of what a used-up budget leaves."""

from __future__ import annotations

from supervisord_agents.core.attempts import stop
from supervisord_agents.core.backlog import ALL, Work
from supervisord_agents.core.budgets import exceeded
from supervisord_agents.core.model import State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task
from supervisord_agents.errors import ErrorCode


def close(table: TaskTable, now: float) -> None:
    """End what has come to be without a budget in the event that is being handled."""
    budgets = table.budgets
    while budgets.closing:
        work = Closing(table, budgets.closing.pop(0))
        work.advance(table, table.step or ALL, now)
        if not work.over:
            table.backlog.works.append(work)
    while budgets.used_up:
        # At once, however many there are: one that were started meanwhile would be one too many.
        budgets.late += _tasks(table, budgets.used_up.pop(0))
    for task in budgets.late:
        account = budgets.of(task.graph)
        if account is not None and account.forbids(task):
            _end(table, task, now)
    budgets.late.clear()


class Closing(Work):
    """Walks through all tasks that draw on a budget, and ends those that are open."""

    def __init__(self, table: TaskTable, holder: str) -> None:
        super().__init__()
        self._todo = _tasks(table, holder)
        self._place = 0

    @property
    def over(self) -> bool:
        return self._place == len(self._todo)

    def advance(self, table: TaskTable, step: int, now: float) -> None:
        for task in self._todo[self._place : self._place + step]:
            self._place += 1
            if not task.ended:
                _end(table, task, now)
                self.names.append(task.id)


def _tasks(table: TaskTable, holder: str) -> list[Task]:
    account = table.budgets.get(holder)
    graphs = [holder, *account.sharers] if account is not None else []
    return [task for graph in graphs for task in table.graphs.tasks(graph)]


def _end(table: TaskTable, task: Task, now: float) -> None:
    account = table.budgets.of(task.graph)
    assert account is not None
    failure = exceeded(task, table.budgets.holder(task.graph), account.over)
    table.change(task)
    stop(table, task, ErrorCode.BUDGET_EXCEEDED)
    task.retry_at = 0.0
    table.move(task, State.FAILED, now, failure)
