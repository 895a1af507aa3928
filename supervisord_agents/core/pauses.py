"""What a person has paused: nothing of it is started until it is resumed."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.task import Task


class Scope(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A pool, or an agent, or an agent in a pool; empty: any."""

    pool: str = ""
    agent: str = ""

    def __str__(self) -> str:
        parts = [f"{kind} {name}" for kind, name in (("pool", self.pool), ("agent", self.agent)) if name]
        return " and ".join(parts) or "all"

    def holds(self, task: Task) -> bool:
        """Whether the task is of it."""
        return self.pool in ("", task.pool) and self.agent in ("", task.agent)


class Pause(msgspec.Struct, frozen=True, array_like=True):
    """Since `at` (seconds, Unix epoch), by the uid `client`, as text."""

    at: float
    client: str = ""
    reason: str = ""


class Pauses(dict[Scope, Pause]):
    """All that is paused."""

    def over(self, task: Task) -> Scope | None:
        """The widest that holds a task."""
        return next((scope for scope in sorted(self) if scope.holds(task)), None)

    def whole(self, pool: str) -> bool:
        """Whether nothing of a pool may start."""
        return Scope() in self or Scope(pool=pool) in self

    def agents(self, pool: str) -> frozenset[str]:
        """Whose tasks may not start in a pool."""
        return frozenset(scope.agent for scope in self if scope.agent and scope.pool in ("", pool))
