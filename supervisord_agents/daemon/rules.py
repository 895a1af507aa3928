"""The rules of placement that a configuration makes (core.placement)."""

from __future__ import annotations

import msgspec
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
        pools={name: msgspec.convert(pool, PoolRule, from_attributes=True) for name, pool in settings.pools.items()},
        agents={name: rule for name in agents.names if (rule := _agent(settings, agents, name)) is not None},
        providers={
            name: ProviderRule(starts_per_minute=provider.starts_per_minute, breaker=breaker)
            for name, provider in settings.gateway.providers.items()
        },
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
    provider = provider if calls_a_model else ""
    if not (table.max_running or table.starts_per_minute or provider or failures):
        return None
    return AgentRule(
        max_running=table.max_running,
        starts_per_minute=table.starts_per_minute,
        provider=provider,
        breaker=Breaker(failures, settings.breakers.open_s),
    )
