"""What the gateway sees of the model providers, for those who decide whether to call one (core.breakers, core.placement)."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from supervisord_agents.core.breakers import BreakerState, tried_at
from supervisord_agents.core.placement import Placement
from supervisord_agents.daemon.clock import Clock

log = structlog.get_logger()


class Providers:
    """The gateway's guard (gateway.guard.Guard). `changed` is called when tasks may start that could not before."""

    def __init__(self, placement: Placement, clock: Clock, changed: Callable[[], None]) -> None:
        self._placement = placement
        self._clock = clock
        self._changed = changed
        self._probed: dict[str, float] = {}
        """Providers with a half-open breaker, and when the last probe was let through."""

    def wait_s(self, provider: str) -> float:
        """For how long a call is refused; 0: it may be made."""
        now = self._clock.now()
        state = self._placement.provider_state(provider, now)
        if state is BreakerState.CLOSED:
            return 0.0
        rule, health = self._placement.provider(provider).breaker, self._placement.providers[provider]
        if state is BreakerState.OPEN:
            return tried_at(rule, health) - now
        # A probe that is not answered in the time that the breaker is open for does not keep the next one out.
        last = self._probed.get(provider, 0.0)
        if now - last < rule.open_s and last >= tried_at(rule, health):
            return rule.open_s - (now - last)
        self._probed[provider] = now
        return 0.0

    def answered(self, provider: str, failure: str, retry_after_s: float) -> None:
        """A call was answered; `failure` says what was wrong with the provider, empty: nothing."""
        now = self._clock.now()
        before = self._placement.provider_state(provider, now)
        if not self._placement.answered(provider, now, failure, retry_after_s):
            return
        after = self._placement.provider_state(provider, now)
        if after is not before:
            log.warning("breaker_changed", provider=provider, state=str(after), reason=failure)
        self._changed()

    def asked_to_wait_s(self, provider: str) -> float:
        """How long a provider wants to be left alone; 0: it did not say."""
        return max(0.0, self._placement.asked_to_wait.get(provider, 0.0) - self._clock.now())
