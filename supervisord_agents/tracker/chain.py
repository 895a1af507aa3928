"""Several back ends, of which the first that works answers: one that fails again and again is left alone for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from supervisord_agents.core.breakers import Breaker, BreakerState, Health, failed, state, tried_at
from supervisord_agents.errors import SupervisorError, Unavailable
from supervisord_agents.tracker.backend import Backend, Limits, Prompt, Standing, Stands, Told

NAME = "chain"
OURS = 0.95
"""Of the time: whoever asks may give up at the end of it, and then nobody would know which one was late."""
LATE_S = 0.5
"""After that, one that does not look at the clock itself is given up."""
log = structlog.get_logger()


class Chain:
    """A back end too. Each has a circuit breaker (core.breakers), and an equal share of the time that is left."""

    def __init__(self, backends: Sequence[Backend], rule: Breaker, now: Callable[[], float] = time.monotonic) -> None:
        """In the order in which they are asked; `now` is in seconds, which `status` takes to be since the epoch."""
        self._backends = tuple(backends)
        self.rule = rule
        self._now = now
        self.healths: dict[str, Health] = {}
        """By name, those that failed when they were last asked."""
        self._last = ""
        """Who has answered, and has not been judged."""

    @property
    def name(self) -> str:
        return NAME

    @property
    def names(self) -> tuple[str, ...]:
        """Of the back ends, in order."""
        return tuple(backend.name for backend in self._backends)

    @property
    def context_tokens(self) -> int:
        """Of the one that will be asked first; 0: of none."""
        first = next(iter(self._working()), None)
        return first.context_tokens if first else 0

    def count(self, text: str) -> int:
        """By the one that will be asked first."""
        first = next(iter(self._working()), None)
        return first.count(text) if first else len(text.encode("utf-8", "replace"))

    def state(self, name: str) -> BreakerState:
        """Whether a back end is asked."""
        return state(self.rule, self.healths.get(name), self._now())

    def standings(self) -> dict[str, Standing]:
        """How each is, by name, in order."""
        return {backend.name: self._standing(backend) for backend in self._backends}

    def standing(self) -> Standing:
        """Of the one that will be asked first; of the first of all, if none will be."""
        standings = list(self.standings().values())
        return next((one for one in standings if one.askable), next(iter(standings), Standing(stands=Stands.LEFT_ALONE)))

    def _standing(self, backend: Backend) -> Standing:
        health = self.healths.get(backend.name)
        if health is None or self.state(backend.name) is not BreakerState.OPEN:
            return backend.standing()
        until = tried_at(self.rule, health)
        return Standing(stands=Stands.LEFT_ALONE, since=health.failed_at, until=until, why=health.last)

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        """The answer of the first that has one. Raises Unavailable, with what is wrong with each of them."""
        until = self._now() + limits.seconds * OURS
        asked = self._working()
        wrong = [f"{name}: {_aside(one)}" for name, one in self.standings().items() if not one.askable]
        for place, backend in enumerate(asked):
            left = until - self._now()
            if left <= 0:
                wrong.append(f"{backend.name}: no time was left")
                continue
            share = Limits(tokens=limits.tokens, seconds=left / (len(asked) - place))
            if needed := _too_many(backend, prompt, limits):
                wrong.append(f"{backend.name}: about {needed} tokens are too many for its {backend.context_tokens}")
                continue
            try:
                async with asyncio.timeout(share.seconds + LATE_S):
                    told = await backend.tell(prompt, schema, share)
            except Exception as error:
                why = _why(error)
                wrong.append(f"{backend.name}: {why}")
                self._failed(backend.name, why)
            else:
                self._last = backend.name
                return told
        raise Unavailable("no model answered: " + ("; ".join(wrong) or "there is none."))

    def judged(self, wrong: str) -> None:
        """One that answers, but not with the truth, is left alone too, so that the next one comes to its turn."""
        if self._last and wrong:
            self._failed(self._last, wrong)
        elif (health := self.healths.pop(self._last, None)) is not None:
            log.info("tracker_works_again", backend=self._last, after=health.failures)
        self._last = ""

    def _failed(self, name: str, why: str) -> None:
        before = self.state(name)
        failed(self.healths, name, why, self._now())
        if self.state(name) is BreakerState.OPEN is not before:
            log.warning("tracker_left_alone", backend=name, open_s=self.rule.open_s, reason=why)
        else:
            log.info("tracker_failed", backend=name, reason=why)

    async def aclose(self) -> None:
        for backend in self._backends:
            await backend.aclose()

    def _working(self) -> list[Backend]:
        return [backend for backend in self._backends if self._standing(backend).askable]


def _aside(standing: Standing) -> str:
    return f"{standing.stands.replace('_', ' ')}, {standing.why}"


def _why(error: Exception) -> str:
    if isinstance(error, SupervisorError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not keep to its time"
    log.error("tracker_broken", exc_info=error)
    return repr(error)


def _too_many(backend: Backend, prompt: Prompt, limits: Limits) -> int:
    """The tokens that it would need, if it has not so many: the prompt may have been made for one that has more."""
    needed = sum(map(backend.count, (prompt.system, prompt.data, prompt.question))) + limits.tokens
    return needed if needed > backend.context_tokens else 0
