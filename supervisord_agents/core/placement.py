"""Which ready tasks may start now, on whose workers and by which agent.

A question only, which changes no task: what it answers may depend on the configuration of now, on how providers answer, and on
what has been started lately. For each pool, in this order:

1. its size (core.scaling), less what runs on its workers, and how often it may start something;
2. the best of its ready tasks (core.ready) whose agent is not paused, whose breaker is not open (core.breakers), and whose agent
   and provider have room left: tasks at once, starts a minute. Of several agents of a task the first is taken that may; one that
   is only busy is waited for;
3. what is left over waits, or borrows a worker of another pool for which nothing waits, and which keeps one for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

import msgspec

from supervisord_agents.core.breakers import Breaker, BreakerState, Health, failed, state, tried_at
from supervisord_agents.core.events import Start
from supervisord_agents.core.rates import Rate
from supervisord_agents.core.ready import Entry, merged
from supervisord_agents.core.scaling import PoolRule, Size
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task

MANY = 1 << 30
MINUTE_S = 60.0


class AgentRule(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one agent; 0: no limit."""

    max_running: int = 0
    starts_per_minute: float = 0.0
    provider: str = ""
    breaker: Breaker = Breaker()


class ProviderRule(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one model provider; 0: no limit."""

    starts_per_minute: float = 0.0
    breaker: Breaker = Breaker()


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All that the configuration says of placement, by name; what is not named has no limits."""

    pools: dict[str, PoolRule] = {}
    agents: dict[str, AgentRule] = {}
    providers: dict[str, ProviderRule] = {}


class Counter:
    """How many more may start in this answer."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Gate(NamedTuple):
    """What an agent may start now: as many as every counter has left. `held` says why another agent should be asked instead."""

    counters: tuple[Counter, ...] = ()
    held: str = ""

    @property
    def left(self) -> int:
        return min((counter.left for counter in self.counters), default=MANY)


_OPEN = Gate()
_NO_RULE = AgentRule()
_NOBODY: frozenset[str] = frozenset()


class Placement:
    """The rules, and what they have to remember. It is not part of any snapshot: a restart begins with the smallest pools."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.providers: dict[str, Health] = {}
        """Those that have failed."""
        self.asked_to_wait: dict[str, float] = {}
        """Providers that have told when to come back, and when."""
        self.again_at = inf
        """When the last answer may become another one merely by the passing of time."""
        self._sizes = {name: Size(rule) for name, rule in self.rules.pools.items()}
        self._pool_rates = {name: Rate(rule.starts_per_s) for name, rule in self.rules.pools.items() if rule.starts_per_s}
        self._agent_rates = _rates(self.rules.agents)
        self._provider_rates = _rates(self.rules.providers)
        self.rated = bool(self._pool_rates or self._agent_rates or self._provider_rates)
        """Whether it matters how often something starts."""

    def starts(self, table: TaskTable, free: Mapping[str, int], now: float) -> list[Start]:
        """What to start, best first within each pool; `free` is how many workers each pool could still have."""
        answer = _Answer(self, table, now)
        room = {pool: self.room(table, pool, count, now) for pool, count in free.items()}
        starts: list[Start] = []
        for pool, count in room.items():
            own = answer.of(pool, min(count, answer.rated(pool)))
            room[pool] = count - len(own)
            starts += own
        for pool in room:
            starts += answer.borrowed(pool, room, starts)
        self._observe(table, starts, now)
        self.again_at = min([answer.again_at, *(size.due for size in self._sizes.values())])
        return starts

    def started(self, task: Task, pool: str, now: float) -> None:
        """It has a worker of that pool now. Needed only if something is `rated`."""
        for rates, name in (
            (self._pool_rates, pool),
            (self._agent_rates, task.agent),
            (self._provider_rates, self.agent(task.agent).provider),
        ):
            if name in rates:
                rates[name].take(now)

    def answered(self, provider: str, now: float, failure: str = "", retry_after_s: float = 0.0) -> bool:
        """A provider answered, or failed to: whether what may start has changed by it, for its own agents or for the next."""
        if not failure:
            return self.reset(provider)
        before = self.provider_state(provider, now)
        failed(self.providers, provider, failure, now)
        if retry_after_s > 0:
            self.asked_to_wait[provider] = max(self.asked_to_wait.get(provider, 0.0), now + retry_after_s)
        return retry_after_s > 0 or self.provider_state(provider, now) is not before

    def reset(self, provider: str) -> bool:
        """It works again, and need not be waited for; whether that is news."""
        waited_for = self.asked_to_wait.pop(provider, None) is not None
        news = self.provider_state(provider, inf) is not BreakerState.CLOSED
        self.providers.pop(provider, None)
        return news or waited_for

    def agent(self, name: str) -> AgentRule:
        """The rules of an agent."""
        return self.rules.agents.get(name, _NO_RULE)

    def provider(self, name: str) -> ProviderRule:
        """The rules of a provider."""
        return self.rules.providers.get(name) or ProviderRule()

    def provider_state(self, name: str, now: float) -> BreakerState:
        """That of its breaker."""
        return state(self.provider(name).breaker, self.providers.get(name), now)

    def size(self, pool: str, now: float) -> int:
        """How many tasks the pool runs at once; 0 for a pool without rules."""
        size = self._sizes.get(pool)
        if size is None:
            return 0
        size.advance(now)
        return size.workers

    def why_not(self, table: TaskTable, task: Task, now: float) -> str:
        """Why no agent of a ready task may start anything; empty: one may, or a pause is in its way."""
        answer = _Answer(self, table, now)
        gates = {agent: answer.gate(agent) for agent in task.choices or (task.agent,)}
        if any(gate.left for gate in gates.values()):
            return ""
        return "; ".join(gate.held or self._busy(agent) for agent, gate in gates.items())

    def hindrance(self, table: TaskTable, pool: str, agents: Sequence[str], now: float) -> tuple[str, bool]:
        """Why no worker is given to a ready task of the first of these agents that may, and whether that is only busy.

        Empty: nothing but other tasks is in its way. No word of it was written by a worker.
        """
        why, busy = _Answer(self, table, now).hindrance(pool, agents)
        return (why or self._busy(busy)).partition(":")[0], bool(busy)

    def rate_of_pool(self, pool: str) -> Rate | None:
        return self._pool_rates.get(pool)

    def rate_of_agent(self, agent: str) -> Rate | None:
        return self._agent_rates.get(agent)

    def rate_of_provider(self, provider: str) -> Rate | None:
        return self._provider_rates.get(provider)

    def _busy(self, agent: str) -> str:
        rule = self.agent(agent)
        per_minute = self.provider(rule.provider).starts_per_minute
        limits = {
            f"it runs {rule.max_running} at once at most": rule.max_running,
            f"it starts {rule.starts_per_minute:g} a minute at most": rule.starts_per_minute,
            f"agents of the provider {rule.provider} start {per_minute:g} a minute at most": per_minute,
        }
        return f"the agent {agent} is busy: {', '.join(text for text, limit in limits.items() if limit)}" if agent else ""

    def room(self, table: TaskTable, pool: str, free: int, now: float) -> int:
        """How many more tasks a pool may run, if it could have `free` more workers."""
        if pool in self._sizes:
            free = min(free, self.size(pool, now) - table.running_in.get(pool, 0))
        return max(free, 0)

    def lends(self, table: TaskTable, pool: str, room: int, starts: list[Start]) -> int:
        """How many workers the pool, with that much room, can spare after these: none while a task of it waits, or while it is
        paused, and never the last."""
        if table.ready.waiting(pool) > _of_pool(table, pool, starts) or (table.pauses and table.pauses.whole(pool)):
            return 0
        lent = sum(1 for lender in table.placed.values() if lender == pool)
        size = self._sizes.get(pool)
        return min(room, size.workers - 1 - lent) if size is not None else 0

    def _observe(self, table: TaskTable, starts: list[Start], now: float) -> None:
        for pool, size in self._sizes.items():
            here = sum(start.pool == pool for start in starts)
            waiting = table.ready.waiting(pool) - _of_pool(table, pool, starts)
            size.observe(table.running_in.get(pool, 0) + here, waiting, now)


class _Answer:
    """One question: what is left of what may start, as the answer grows."""

    def __init__(self, placement: Placement, table: TaskTable, now: float) -> None:
        self._placement = placement
        self._table = table
        self._now = now
        self.again_at = inf
        """When another one may be due merely by the passing of time; sizes are not in it."""
        self._gates: dict[str, Gate] = {}
        self._of_provider: dict[str, Counter] = {}

    def of(self, pool: str, count: int, lender: str = "", offered: frozenset[str] = _NOBODY) -> list[Start]:
        """At most `count` of the pool's tasks, for its own workers or the lender's; none that is `offered` already."""
        table = self._table
        starts: list[Start] = []
        if count <= 0 or (table.pauses and table.pauses.whole(pool)):
            return starts
        paused = table.pauses.agents(pool) if table.pauses else _NOBODY
        for entry in merged(self._bests(pool, count, len(offered), paused), MANY):
            task = entry[3]
            agent, note = task.agent, ""
            if offered and task.id in offered:
                continue
            if task.choices or self._gates[agent] is not _OPEN:
                agent, note = self._choose(task, paused)
                if not agent:
                    continue
            starts.append(
                Start(
                    task=task.id,
                    attempt=task.attempt + 1,
                    pool=lender or pool,
                    agent="" if agent == task.agent else agent,
                    note=f"a worker of the pool {lender}, for which nothing waits" if lender else note,
                )
            )
            if len(starts) == count:
                break
        return starts

    def borrowed(self, pool: str, room: dict[str, int], starts: list[Start]) -> list[Start]:
        """What a pool whose workers are all busy gets from those it may borrow from, of which each has so much room left."""
        rule = self._placement.rules.pools.get(pool)
        if rule is None or room[pool] or not rule.borrows_from:
            return []
        found: list[Start] = []
        for lender in rule.borrows_from:
            so_far = [*starts, *found]
            count = self._placement.lends(self._table, lender, room[lender], so_far) if lender in room else 0
            count = min(count, self.rated(pool) - _of_pool(self._table, pool, so_far))
            lent = self.of(pool, count, lender, frozenset(start.task for start in so_far))
            if lent:
                room[lender] -= len(lent)
            found += lent
        return found

    def rated(self, pool: str) -> int:
        """How many tasks of the pool its rate lets start."""
        return self._left(self._placement.rate_of_pool(pool))

    def _left(self, rate: Rate | None) -> int:
        if rate is None:
            return MANY
        self._later(rate.next_at(self._now))
        return rate.left(self._now)

    def _later(self, at: float) -> None:
        self.again_at = min(self.again_at, at)

    def gate(self, agent: str) -> Gate:
        gate = self._gates.get(agent)
        if gate is None:
            gate = self._gates[agent] = self._made(agent)
        return gate

    def _bests(self, pool: str, count: int, more: int, paused: frozenset[str]) -> list[list[Entry]]:
        """The best of each lane: `count`, or as many as may start, and `more` that may be offered already."""
        bests = []
        for choices, lane in self._table.ready.lanes(pool):
            if lane.waiting and (limit := self._limit(choices, paused)):
                bests.append(lane.best(min(count, limit) + more))
        return bests

    def _limit(self, choices: str | tuple[str, ...], paused: frozenset[str]) -> int:
        if isinstance(choices, str):
            return 0 if choices in paused else self.gate(choices).left
        return sum(self.gate(agent).left for agent in choices if agent not in paused)

    def _choose(self, task: Task, paused: frozenset[str]) -> tuple[str, str]:
        """The agent to run it, and why not the first; empty: it waits."""
        why = ""
        for agent in task.choices or (task.agent,):
            gate = self.gate(agent)
            if agent in paused:
                why = why or f"the agent {agent} is paused"
            elif gate.left:
                for counter in gate.counters:
                    counter.left -= 1
                return agent, f"{agent}, since {why}" if why else ""
            elif gate.held:
                why = why or gate.held
            else:
                break  # It is busy, and what is busy is waited for.
        return "", ""

    def hindrance(self, pool: str, agents: Sequence[str]) -> tuple[str, str]:
        """Why none of them is to run a task now, or which one of them is busy, as `_choose` sees it; both empty: one may."""
        paused, why = self._table.pauses.agents(pool), ""
        for agent in agents:
            gate = self.gate(agent)
            if agent not in paused and gate.left:
                return "", ""
            if agent not in paused and not gate.held:
                return "", agent
            why = why or (f"the agent {agent} is paused" if agent in paused else gate.held)
        return why, ""

    def _made(self, agent: str) -> Gate:
        placement = self._placement
        rule = placement.rules.agents.get(agent)
        if rule is None:
            return _OPEN
        left, held = self._tried(f"agent {agent}", rule.breaker, self._table.health.get(agent), {agent})
        left = min(left, self._left(placement.rate_of_agent(agent)))
        if rule.max_running:
            left = min(left, max(0, rule.max_running - self._running(agent)))
        if not rule.provider:
            return Gate((Counter(left),), held)
        of_provider, why = self._provider(rule.provider)
        return Gate((Counter(left), of_provider), held or why)

    def _provider(self, name: str) -> tuple[Counter, str]:
        """Shared by all agents that call it."""
        placement, now = self._placement, self._now
        rule = placement.provider(name)
        agents = {agent for agent, rule in placement.rules.agents.items() if rule.provider == name}
        left, held = self._tried(f"provider {name}", rule.breaker, placement.providers.get(name), agents)
        until = placement.asked_to_wait.get(name, 0.0)
        if until > now:
            self._later(until)
            left, held = 0, f"the provider {name} asks to wait for {until - now:.0f} s"
        left = min(left, self._left(placement.rate_of_provider(name)))
        return self._of_provider.setdefault(name, Counter(left)), held

    def _tried(self, name: str, rule: Breaker, health: Health | None, agents: set[str]) -> tuple[int, str]:
        """How many may be tried, and why not all."""
        how = state(rule, health, self._now)
        if how is BreakerState.CLOSED or health is None:
            return MANY, ""
        at = tried_at(rule, health)
        why = f"the breaker of {name} is {how}: {health.failures} failures in a row, the last: {health.last}"
        if how is BreakerState.OPEN:
            self._later(at)
            return 0, why
        running = self._table.running.values()
        probed = any(task.agent in agents and task.started_at >= at for task in running)
        return (0 if probed else 1), why

    def _running(self, agent: str) -> int:
        return sum(task.agent == agent for task in self._table.running.values())


def _rates(rules: Mapping[str, AgentRule] | Mapping[str, ProviderRule]) -> dict[str, Rate]:
    return {name: Rate(rule.starts_per_minute / MINUTE_S) for name, rule in rules.items() if rule.starts_per_minute}


def _of_pool(table: TaskTable, pool: str, starts: Sequence[Start]) -> int:
    """How many of these start a task of the pool, wherever."""
    return sum(table.tasks[start.task].pool == pool for start in starts)
