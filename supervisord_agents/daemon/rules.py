"""The rules of placement that a configuration makes (core.placement)."""

from __future__ import annotations

import structlog

from supervisord_agents import config
from supervisord_agents.core.breakers import Breaker
from supervisord_agents.core.placement import AgentRule, ProviderRule, Rules
from supervisord_agents.core.scaling import PoolRule
from supervisord_agents.errors import SupervisorError
from supervisord_agents.workers.agents.registry import AgentRegistry

log = structlog.get_logger()


def rules_of(settings: config.Config, agents: AgentRegistry) -> Rules:
    """One rule for each pool, provider and agent. An agent that cannot be loaded has none: it starts nothing."""
    breaker = Breaker(settings.breakers.failures, settings.breakers.open_s)
    return Rules(
        pools={name: _pool(pool) for name, pool in settings.pools.items()},
        agents={name: rule for name in agents.names if (rule := _agent(settings, agents, name)) is not None},
        providers={
            name: ProviderRule(starts_per_minute=provider.starts_per_minute, breaker=breaker)
            for name, provider in settings.gateway.providers.items()
        },
    )


def _pool(pool: config.Pool) -> PoolRule:
    return PoolRule(
        max_workers=pool.max_workers,
        min_workers=pool.min_workers,
        scaling=pool.scaling,
        scale_up_waiting=pool.scale_up_waiting,
        scale_up_s=pool.scale_up_s,
        scale_up_wait_s=pool.scale_up_wait_s,
        idle_s=pool.idle_s,
        borrows_from=pool.borrows_from,
        starts_per_s=pool.starts_per_s,
    )


def _agent(settings: config.Config, agents: AgentRegistry, name: str) -> AgentRule | None:
    """None: nothing limits it."""
    table = settings.agents.get(name, config.Agent())
    try:
        calls_a_model, provider = agents.get(name).needs_gateway, agents.settings(name)["provider"]
    except SupervisorError as error:
        log.warning("agent_without_rules", agent=name, reason=str(error))
        return None
    failures = table.breaker_failures
    if failures is None:
        failures = settings.breakers.failures if calls_a_model else 0
    rule = AgentRule(
        max_running=table.max_running,
        starts_per_minute=table.starts_per_minute,
        provider=provider if calls_a_model else "",
        breaker=Breaker(failures, settings.breakers.open_s if failures else 0.0),
    )
    return rule if rule != AgentRule(breaker=Breaker(0, 0.0)) else None
