"""How many tasks a pool runs at once: it grows while tasks wait for long, and shrinks while nothing does.

on-demand      as many as the pool may have
pre-warmed     the same, and the shell keeps a worker ready for each
hybrid         from `min_workers`; one more whenever over `scale_up_waiting` tasks have waited for `scale_up_s`, or any at all
               for `scale_up_wait_s`; one less after `idle_s` in which not all had work (research, section 2)
"""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec

Scaling = Literal["on-demand", "pre-warmed", "hybrid"]


class PoolRule(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one pool; the fields are those of its table in the configuration."""

    max_workers: int
    min_workers: int = 0
    scaling: Scaling = "on-demand"
    scale_up_waiting: int = 5
    scale_up_s: float = 10.0
    scale_up_wait_s: float = 30.0
    idle_s: float = 60.0
    borrows_from: tuple[str, ...] = ()
    starts_per_s: float = 0.0
    """0: no limit."""

    @property
    def floor(self) -> int:
        """What it never shrinks below: a pool without warm workers still works."""
        return max(self.min_workers, 1) if self.scaling == "hybrid" else self.max_workers


class Size:
    """The size of one pool, in workers. All times are seconds on the caller's clock, which never runs backwards."""

    __slots__ = ("_crowded_since", "_idle_since", "_rule", "_waiting_since", "workers")

    def __init__(self, rule: PoolRule) -> None:
        self._rule = rule
        self.workers = rule.floor
        self._crowded_since = self._waiting_since = self._idle_since = inf

    def advance(self, now: float) -> None:
        """Grow and shrink by what has been so since the last `observe`."""
        rule = self._rule
        while (at := self.due) <= now:
            self.workers += 1
            # Another step needs as long again.
            self._crowded_since = inf if self._crowded_since == inf else at
            self._waiting_since = inf if self._waiting_since == inf else at
        while self.workers > rule.floor and self._idle_since + rule.idle_s <= now:
            self.workers -= 1
            self._idle_since += rule.idle_s

    def observe(self, running: int, waiting: int, now: float) -> None:
        """From now on so many run, and so many wait that could run if there were a worker."""
        full = running >= self.workers
        self._crowded_since = _since(self._crowded_since, full and waiting > self._rule.scale_up_waiting, now)
        self._waiting_since = _since(self._waiting_since, full and waiting > 0, now)
        self._idle_since = _since(self._idle_since, not full, now)

    @property
    def due(self) -> float:
        """When it grows, if nothing happens before; inf: it does not."""
        if self.workers >= self._rule.max_workers:
            return inf
        return min(self._crowded_since + self._rule.scale_up_s, self._waiting_since + self._rule.scale_up_wait_s)


def _since(since: float, holds: bool, now: float) -> float:
    return min(since, now) if holds else inf
