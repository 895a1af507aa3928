"""The circuit breakers as people see them, and reset them."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from supervisord_agents.core.breakers import Breaker, BreakerState, Health, state, tried_at
from supervisord_agents.core.events import BreakerReset
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.errors import NotFound
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.tracker.chain import Chain
from supervisord_agents.wire import breakers as m

log = structlog.get_logger()


class BreakerControl:
    """The handlers of `breakers` and `reset_breaker`."""

    def __init__(self, engine: Engine, attempts: Attempts, chain: Chain | None) -> None:
        """`chain` asks the models of the tracker."""
        self._engine = engine
        self._attempts = attempts
        self._chain = chain

    async def breakers(self, request: m.Breakers, peer: Peer) -> m.BreakersReply:
        reply = m.BreakersReply(breakers=self._views())
        await self._engine.settled_for([])
        return reply

    async def reset(self, request: m.ResetBreaker, peer: Peer) -> m.ResetBreakerReply:
        scheduler = self._engine.scheduler
        if request.kind == "agent":
            event = BreakerReset(agent=request.name)
            scheduler.check(event, self._engine.clock.now())
            self._engine.feed(event)
        elif request.kind == "tracker":
            self._reset_model(request.name)
        elif request.name in {*scheduler.placement.providers, *scheduler.placement.asked_to_wait}:
            scheduler.placement.reset(request.name)
        else:
            there = ", ".join(sorted({*scheduler.placement.providers, *scheduler.placement.asked_to_wait})) or "none"
            raise NotFound(
                f"the provider {request.name[:80]!r} has not failed lately; providers that have: {there}", field="name"
            )
        log.warning("breaker_reset", kind=request.kind, name=request.name, uid=peer.uid)
        self._attempts.slots_changed()
        reply = m.ResetBreakerReply(breakers=self._views())
        await self._engine.settled()
        return reply

    def _reset_model(self, name: str) -> None:
        failed = self._chain.healths if self._chain is not None else {}
        if name not in failed:
            there = ", ".join(sorted(failed)) or "none"
            raise NotFound(f"the tracker's model {name[:80]!r} has not failed lately; models that have: {there}", field="name")
        del failed[name]

    def _views(self) -> list[m.BreakerView]:
        return views(self._engine.scheduler, self._engine.clock.now(), self._chain)


def views(scheduler: Scheduler, now: float, chain: Chain | None = None) -> list[m.BreakerView]:
    """All that have failed lately; those that are not closed come first."""
    return sorted(_views(scheduler, now, chain), key=lambda view: (view.state == BreakerState.CLOSED, view.kind, view.name))


def _views(scheduler: Scheduler, now: float, chain: Chain | None) -> Iterator[m.BreakerView]:
    placement = scheduler.placement
    for name, health in scheduler.table.health.items():
        yield _view("agent", name, placement.agent(name).breaker, health, now)
    for name, health in placement.providers.items():
        yield _view("provider", name, placement.provider(name).breaker, health, now)
    if chain is not None:
        for name, health in chain.healths.items():
            yield _view("tracker", name, chain.rule, health, now)


def _view(kind: m.Kind, name: str, rule: Breaker, health: Health, now: float) -> m.BreakerView:
    how = state(rule, health, now)
    return m.BreakerView(
        kind=kind,
        name=name,
        state=str(how),
        failures=health.failures,
        limit=rule.failures,
        failed_at=health.failed_at,
        tried_at=tried_at(rule, health) if how is BreakerState.OPEN else 0.0,
        last=health.last,
    )
