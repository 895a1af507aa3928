"""Workers that only say when they are done, in pools of the daemon's sizes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from math import inf
from typing import NamedTuple

from supervisord_agents.config import Config
from supervisord_agents.core.events import Start
from supervisord_agents.core.model import Failure
from supervisord_agents.core.placement import AgentRule, Placement, Rules
from supervisord_agents.core.scaling import PoolRule
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.rules import rules_of
from supervisord_agents.errors import ErrorCode
from supervisord_agents.workers.agents.registry import AgentRegistry

BROKEN = Failure(ErrorCode.WORKER_FAILED, "the simulated worker failed")


class Work(NamedTuple):
    """What an attempt comes to, unless it is stopped: it ends after `seconds`; inf: it hangs."""

    seconds: float
    failure: Failure | None = None


Behaviour = Callable[[Task], Work]
"""Asked at each start of an attempt."""


class Dice(NamedTuple):
    """Work by chance: how long, give or take `spread` of it, and how often an attempt fails on its way, or hangs.

    What an attempt comes to hangs on the seed, the task and the attempt alone, so that no policy changes another's luck.
    """

    seed: int
    seconds: float = 0.0
    """0: the estimate of the task."""
    spread: float = 0.0
    failing: float = 0.0
    hanging: float = 0.0

    def __call__(self, task: Task) -> Work:
        dice = random.Random(f"{self.seed}:{task.short_id}:{task.attempt}")
        seconds = (self.seconds or task.estimate_s) * dice.uniform(1.0 - self.spread, 1.0 + self.spread)
        if dice.random() < self.hanging:
            return Work(inf)
        if dice.random() < self.failing:
            return Work(seconds * dice.random(), BROKEN)
        return Work(seconds)


class Workers:
    """How many attempts run in each pool, and what may be started beside them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._busy = dict.fromkeys(rules.pools, 0)

    def attach(self, scheduler: Scheduler) -> None:
        """Have the scheduler go by the rules."""
        scheduler.placement = Placement(self._rules)

    def starts(self, scheduler: Scheduler, now: float) -> list[Start]:
        """What the daemon would start at `now`."""
        return scheduler.starts({name: pool.max_workers - self._busy[name] for name, pool in self._rules.pools.items()}, now)

    def taken(self, pool: str) -> None:
        """A worker of the pool has an attempt."""
        self._busy[pool] += 1

    def left(self, pool: str) -> None:
        """It has none any more."""
        self._busy[pool] -= 1


@cache
def default_rules() -> Rules:
    """Those of config.toml."""
    settings = Config()
    return rules_of(settings, AgentRegistry(settings))


def fixed(pools: Mapping[str, int], **agents: AgentRule) -> Rules:
    """Pools of so many workers, all of them ready from the first."""
    return Rules(pools={name: PoolRule(max_workers=most) for name, most in pools.items()}, agents=agents)
