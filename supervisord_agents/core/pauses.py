"""What a person has paused: nothing of it is started until it is resumed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisord_agents.core.task import Task


class Scope(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A pool, or an agent, or an agent in a pool; empty: any."""

    pool: str = ""
    agent: str = ""

    def __str__(self) -> str:
        parts = [f"{kind} {name}" for kind, name in (("pool", self.pool), ("agent", self.agent)) if name]
        return " and ".join(parts) or "all"

    def covers(self, pool: str, agent: str) -> bool:
        """Whether tasks of the agent in the pool are of it."""
        return self.pool in ("", pool) and self.agent in ("", agent)

    def holds(self, task: Task) -> bool:
        """Whether the task is of it."""
        return self.covers(task.pool, task.agent)


class Pause(msgspec.Struct, frozen=True, array_like=True):
    """Since `at` (seconds, Unix epoch), by the uid `client`, as text."""

    at: float
    client: str = ""
    reason: str = ""


class Pauses(dict[Scope, Pause]):
    """All that is paused."""

    def over(self, task: Task) -> Scope | None:
        """The widest that holds a task."""
        return self.holding(task.pool, task.agent)

    def holding(self, pool: str, agent: str) -> Scope | None:
        """The widest that holds the tasks of an agent in a pool."""
        return next((scope for scope in sorted(self) if scope.covers(pool, agent)), None) if self else None

    def holding_all(self, pool: str, agents: Iterable[str]) -> Scope | None:
        """The widest that holds the first of some agents in a pool, if all of them are held."""
        scopes = [self.holding(pool, agent) for agent in agents] if self else []
        return scopes[0] if scopes and None not in scopes else None

    def whole(self, pool: str) -> bool:
        """Whether nothing of a pool may start."""
        return Scope() in self or Scope(pool=pool) in self

    def agents(self, pool: str) -> frozenset[str]:
        """Whose tasks may not start in a pool."""
        return frozenset(scope.agent for scope in self if scope.agent and scope.pool in ("", pool))
