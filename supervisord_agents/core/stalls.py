"""Attempts that run and make no progress, though their workers live (research, section 6, "Zombie workers").

Progress is whatever the caller says it is. Times are seconds on a clock that stands still while the machine sleeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Stalled(NamedTuple):
    """An attempt that has made no progress for `idle_s` seconds, which is more than `limit_s`."""

    task: str
    attempt: int
    idle_s: float
    limit_s: float


class _Watched:
    def __init__(self, attempt: int, limit_s: float, moved_at: float) -> None:
        self.attempt = attempt
        self.limit_s = limit_s
        self.moved_at = moved_at


class Stalls:
    """Of all running attempts. `limit_s` is how long one may make no progress, `limits_s` that by type of task; 0: for ever."""

    def __init__(self, limit_s: float, limits_s: Mapping[str, float]) -> None:
        self._limit_s = limit_s
        self._limits_s = limits_s
        self._watched: dict[str, _Watched] = {}

    def begun(self, task: str, attempt: int, type: str, now: float) -> None:
        """An attempt of a task of this type runs."""
        self._watched[task] = _Watched(attempt, self._limits_s.get(type, self._limit_s), now)

    def moved(self, task: str, now: float) -> None:
        """Its attempt has made progress."""
        if (watched := self._watched.get(task)) is not None:
            watched.moved_at = now

    def over(self, task: str) -> None:
        """Its attempt runs no longer."""
        self._watched.pop(task, None)

    def __contains__(self, task: str) -> bool:
        return task in self._watched

    def idle_s(self, task: str, now: float) -> float:
        """For how long it has made no progress; raises KeyError for one that does not run."""
        return now - self._watched[task].moved_at

    def unheard(self, seconds: float) -> None:
        """For so long nothing was heard of any of them: that is not theirs."""
        for watched in self._watched.values():
            watched.moved_at += seconds

    def stalled(self, now: float) -> list[Stalled]:
        """Those that are beyond their limits."""
        return [
            Stalled(task, watched.attempt, now - watched.moved_at, watched.limit_s)
            for task, watched in self._watched.items()
            if watched.limit_s and now - watched.moved_at > watched.limit_s
        ]
