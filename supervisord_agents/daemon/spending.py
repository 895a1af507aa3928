"""What the running attempts of a graph use, watched while they run: a budget ends them when they have used it up, not after."""

from __future__ import annotations

import structlog

from supervisord_agents.core.events import BudgetSpent
from supervisord_agents.core.model import Usage
from supervisord_agents.core.task import NO_USAGE, Task
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.errors import JournalError
from supervisord_agents.wire.messages import BudgetView

log = structlog.get_logger()


class Spending:
    """Budgets with what is not in any event yet."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._engine: Engine

    def attach(self, engine: Engine) -> None:
        """Feed events to this engine."""
        self._engine = engine

    def look(self, task: Task) -> None:
        """The running task has used more: end its graph if that used up the budget."""
        budgets = self._engine.scheduler.budgets
        account = budgets.of(task.graph)
        if account is None or account.closed:
            return
        holder = budgets.holder(task.graph)
        usage = account.usage + self._under_way(holder)
        why = account.spent(usage)
        if not why:
            return
        log.warning("budget_used_up", graph=holder, used=why)
        try:
            self._engine.feed(BudgetSpent(graph=holder, usage=usage))
        except JournalError as error:
            log.error("budget_not_recorded", graph=holder, error=str(error))

    def view(self, graph: str) -> BudgetView | None:
        """The budget that a graph draws on, if there is one."""
        budgets = self._engine.scheduler.budgets
        account = budgets.of(graph)
        if account is None:
            return None
        holder = budgets.holder(graph)
        return BudgetView(
            graph=holder,
            budget=account.budget,
            attempts=account.attempts,
            usage=account.usage + self._under_way(holder),
            until=account.until,
            used_up=account.over,
        )

    def _under_way(self, holder: str) -> Usage:
        scheduler = self._engine.scheduler
        total = NO_USAGE
        for task in scheduler.running_tasks():
            if scheduler.budgets.holder(task.graph) == holder:
                total = total + self._accounts.so_far(task.id)
        return total
