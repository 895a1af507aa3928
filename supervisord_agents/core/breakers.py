"""Circuit breakers: what fails again and again is left alone for a while, then tried by one (M. Nygard, "Release It!", 2007).

    closed ── `failures` in a row ──► open ── `open_s` later ──► half-open ── the probe succeeds ──► closed
                                       ▲                             │
                                       └───────── it fails ──────────┘

What is kept are facts, how often it failed in a row and when last. The state follows from them and from the rule of now, so that
a changed configuration changes nothing of what has happened.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from enum import StrEnum

import msgspec

from supervisord_agents.core.model import Category, Failure
from supervisord_agents.core.policy import category_of

COUNTED = frozenset({Category.TRANSIENT, Category.RATE_LIMITED, Category.SANDBOX})
"""Failures that say something about the agent; the others are the task's own."""
MESSAGE_CHARACTERS = 300


class Breaker(msgspec.Struct, frozen=True):
    """A rule; `failures` 0: it never opens."""

    failures: int = 0
    open_s: float = 60.0


class Health(msgspec.Struct, frozen=True, array_like=True):
    """So many failures in a row, the last at `failed_at` (seconds, Unix epoch), which was `last`."""

    failures: int
    failed_at: float
    last: str = ""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def state(rule: Breaker, health: Health | None, now: float) -> BreakerState:
    """Whether something may be tried: all, nothing, or one at a time."""
    if health is None or not rule.failures or health.failures < rule.failures:
        return BreakerState.CLOSED
    return BreakerState.OPEN if now < tried_at(rule, health) else BreakerState.HALF_OPEN


def tried_at(rule: Breaker, health: Health) -> float:
    """When an open breaker lets a probe through."""
    return health.failed_at + rule.open_s


def failed(healths: MutableMapping[str, Health], name: str, last: str, now: float) -> None:
    """One more failure in a row."""
    before = healths.get(name)
    healths[name] = Health(before.failures + 1 if before else 1, now, last[:MESSAGE_CHARACTERS])


def observe(healths: MutableMapping[str, Health], agent: str, failure: Failure | None, now: float) -> None:
    """An attempt of an agent ended; None: it succeeded."""
    if failure is None:
        healths.pop(agent, None)
    elif category_of(failure) in COUNTED:
        failed(healths, agent, failure.text, now)
