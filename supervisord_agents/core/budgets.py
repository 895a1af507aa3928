"""Budgets: what the tasks of a graph may use together, and what they have used.

Attempts are counted as they start, tokens and money as they are told of: at the end of an attempt, or before it, when the shell
sees that those under way have used up what is left (`BudgetSpent`). Once the attempts are used up, what runs goes on and nothing
more starts; once anything else is, what runs is stopped and all that is left ends (core.closing).

An attempt that costs no retry, since it was lost with the daemon or stopped by a pause, is given back.
"""

from __future__ import annotations

import heapq

import msgspec

from supervisord_agents.core.events import Submitted
from supervisord_agents.core.model import END_STATES, Budget, Failure, State, Usage
from supervisord_agents.core.task import NO_USAGE, Task, graph_of
from supervisord_agents.errors import ErrorCode

NO_BUDGET = Budget()
_STARTABLE = frozenset({State.READY, State.BACKING_OFF})
HINT = "What has ended is kept. Submit the rest anew, with a larger budget."


class Account(msgspec.Struct, eq=False):
    """A graph with a budget, and what it has used."""

    budget: Budget
    until: float = 0.0
    """When its time is over; 0.0: never."""
    attempts: int = 0
    usage: Usage = NO_USAGE
    closed: str = ""
    """What was used up, in words, once all that is left has to end."""
    open: int = 0
    """Tasks that have not ended."""
    sharers: list[str] = []
    """Further graphs that draw on it."""

    def spent(self, usage: Usage) -> str:
        """What of tokens and money is used up if so much is used, in words; empty: nothing."""
        budget = self.budget
        if budget.tokens and usage.tokens >= budget.tokens:
            return f"{usage.tokens:,} of {budget.tokens:,} tokens"
        if budget.cost_usd and usage.cost_usd >= budget.cost_usd:
            return f"${usage.cost_usd:.4f} of ${budget.cost_usd:g}"
        return ""

    @property
    def over(self) -> str:
        """Why nothing more may start, in words; empty: it may."""
        if not self.closed and self.budget.attempts and self.attempts >= self.budget.attempts:
            return f"{self.attempts:,} of {self.budget.attempts:,} attempts"
        return self.closed

    def over_at(self, now: float) -> str:
        """The same, at a time that no event has told of."""
        return self.over or (self.time if self.until and now >= self.until else "")

    def forbids(self, task: Task) -> bool:
        """Whether a task has to end because of it."""
        return not task.ended and bool(self.closed or (task.state in _STARTABLE and self.over))

    @property
    def time(self) -> str:
        """In words."""
        return f"{self.budget.wall_s:g} s since its submission"


class Budgets(dict[str, Account]):
    """By the graph that holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[str, str] = {}
        """Of graphs that draw on the budget of another."""
        self.late: list[Task] = []
        """Changed, in the event that is being handled, after the budget was used up: may have to end."""
        self.used_up: list[str] = []
        """Whose last attempt was started in it."""
        self.closing: list[str] = []
        """Whose rest has to end since it."""
        self._ends: list[tuple[float, str]] = []

    def holder(self, graph: str) -> str:
        """The graph whose budget this one draws on: its own, or that of another."""
        return self.holders.get(graph, graph)

    def of(self, graph: str) -> Account | None:
        """The account that a graph draws on, if there is one."""
        return self.get(self.holder(graph))

    @property
    def pending(self) -> bool:
        """Whether something has to end before the event is over."""
        return bool(self.late or self.used_up or self.closing)

    def open(self, event: Submitted, now: float) -> None:
        """Take up a new graph, if it has a budget or its parent's graph has one; its tasks follow by `added`."""
        budget = event.budget
        if event.parent:
            self.share(event.graph, graph_of(event.parent))
        elif budget != NO_BUDGET:
            self.hold(event.graph, Account(budget, now + budget.wall_s if budget.wall_s else 0.0))

    def hold(self, graph: str, account: Account) -> None:
        """Take up a graph with its account, which counts its tasks already or will by `added`."""
        self[graph] = account
        self.holders |= dict.fromkeys(account.sharers, graph)
        self._watch(graph, account)

    def share(self, graph: str, other: str) -> None:
        """Have a new graph draw on the budget that another one draws on, if that has one."""
        holder = self.holder(other)
        account = self.get(holder)
        if account is not None:
            self.holders[graph] = holder
            account.sharers = [*account.sharers, graph]

    def added(self, task: Task) -> None:
        """A new task of a graph that has been taken up."""
        account = self.of(task.graph)
        if account is not None and not task.ended:
            account.open += 1
            self._look(task, account)

    def moved(self, task: Task, before: State) -> None:
        """A task has changed its state."""
        account = self.of(task.graph)
        if account is None:
            return
        if task.state in END_STATES:
            account.open -= 1
            return
        if before in END_STATES:
            account.open += 1
            if account.open == 1:
                self._watch(self.holder(task.graph), account)
        elif before is State.RUNNING and task.state is State.READY:
            account.attempts -= 1
        elif task.state is State.RUNNING:
            account.attempts += 1
            if account.over and not account.closed:
                self.used_up.append(self.holder(task.graph))
        self._look(task, account)

    def _look(self, task: Task, account: Account) -> None:
        if task.state is not State.RUNNING and account.forbids(task):
            self.late.append(task)

    def count(self, task: Task, usage: Usage) -> None:
        """So much was used by it, beside what was counted before."""
        account = self.of(task.graph)
        if account is not None:
            account.usage = account.usage + usage
            self.close(self.holder(task.graph), account.spent(account.usage))

    def close(self, holder: str, why: str) -> None:
        """All that is left of it has to end, since so much is used; nothing happens without a reason, or a second time."""
        account = self[holder]
        if why and not account.closed:
            account.closed = why
            self.closing.append(holder)

    def next_due(self) -> float | None:
        """When the time of some graph is over; None: of none."""
        while self._ends and not self._live(*self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    def due(self, now: float) -> None:
        """Close those whose time is over."""
        while (at := self.next_due()) is not None and at <= now:
            _, graph = heapq.heappop(self._ends)
            self.close(graph, self[graph].time)

    def forget(self, graph: str) -> None:
        """The graph leaves memory; those that draw on its budget lose it."""
        account = self.pop(graph, None)
        if account is not None:
            for sharer in account.sharers:
                self.holders.pop(sharer, None)
        shared = self.get(self.holders.pop(graph, ""))
        if shared is not None:
            shared.sharers = [sharer for sharer in shared.sharers if sharer != graph]

    def _watch(self, graph: str, account: Account) -> None:
        if account.until:
            heapq.heappush(self._ends, (account.until, graph))

    def _live(self, at: float, graph: str) -> bool:
        account = self.get(graph)
        return account is not None and account.until == at and account.open > 0 and not account.closed


def exceeded(task: Task, holder: str, why: str) -> Failure:
    """Why a task ends."""
    last = f"; the last failure was {task.failure.text}" if task.failure is not None else ""
    return Failure(ErrorCode.BUDGET_EXCEEDED, f"the budget of {holder} is used up: {why}{last}", HINT, retriable=False)
