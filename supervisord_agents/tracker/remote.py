"""A model at a provider of the gateway: any OpenAI-compatible server (llama-server, vLLM, Ollama, OpenAI), Gemini, or Claude."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
import structlog

from supervisord_agents.core.model import Usage
from supervisord_agents.errors import InvalidInput, SupervisorError, Unavailable
from supervisord_agents.tracker.backend import Limits, Prompt, Standing, Stands, Told
from supervisord_agents.tracker.dialects import DIALECTS, NoAnswer, fault_in
from supervisord_agents.tracker.measure import Measure
from supervisord_agents.tracker.purse import Purse

NOT_TAKEN = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
"""What a server answers to a request with something in it that it does not know."""
log = structlog.get_logger()


class Unanswered(Unavailable):
    """A provider was sent the request, and gave no answer, or not in time: it may want to be paid all the same."""


class Reply(Protocol):
    """Of a provider, with what it cost at the provider's prices."""

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...

    @property
    def usage(self) -> Usage: ...


Inquire = Callable[[str, str, bytes, float], Awaitable[Reply]]
"""Provider, path below its base_url, JSON, and how many seconds to wait for the answer; raises SupervisorError,
and of it Unanswered if the request was sent."""


class Remote:
    """A back end. What it sends is the digest: ids, states, and what workers and clients wrote, to whoever runs the provider."""

    def __init__(
        self,
        name: str,
        provider: str,
        dialect: str,
        model: str,
        context_tokens: int,
        inquire: Inquire,
        *,
        purse: Purse,
        most_usd: float = 0.0,
    ) -> None:
        """`dialect` is one of DIALECTS; an answer costs about `most_usd` at the most, out of that purse."""
        self._name = name
        self._provider = provider
        self._dialect = DIALECTS[dialect]
        self._model = model
        self._context_tokens = context_tokens
        self._inquire = inquire
        self._purse = purse
        self._most_usd = most_usd
        self._measure = Measure()
        self._way = 0
        """Of the dialect's, the first that the server has taken."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def standing(self) -> Standing:
        until = self._purse.until(self._most_usd)
        if not until:
            return Standing()
        why = f"${self._purse.spent_usd:.2f} of ${self._purse.limit_usd:.2f} a day are spent"
        if until == math.inf:
            why = f"an answer may cost ${self._most_usd:.2f}, and a day ${self._purse.limit_usd:.2f}"
        return Standing(stands=Stands.OVER_LIMIT, until=until if until < math.inf else 0.0, why=why)

    def count(self, text: str) -> int:
        return self._measure.count(text)

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        """Raises Unavailable, or InvalidInput if the provider cannot make use of the request."""
        began = time.monotonic()
        reply = await self._taken(prompt, schema, limits)
        if reply.status != HTTPStatus.OK:
            raise self._refused(reply)
        self._measure.learn(
            sum(len(part.encode()) for part in (prompt.system, prompt.data, prompt.question)), reply.usage.input_tokens
        )
        if (standing := self.standing()).stands is Stands.OVER_LIMIT:
            log.warning("tracker_over_limit", backend=self._name, why=standing.why, until=standing.until)
        return Told(
            text=self._text(reply.body),
            by=f"{self._name} ({self._model})",
            usage=reply.usage,
            seconds=time.monotonic() - began,
        )

    async def _paid(self, path: str, body: bytes, seconds: float) -> Reply:
        """A reply, and what it cost counted; of one that says nothing of it, or was not waited for, the most."""
        charge = self._purse.charge(self._most_usd)
        try:
            reply = await self._inquire(self._provider, path, body, seconds)
        except Unanswered:
            raise
        except SupervisorError:
            charge.was(0.0)
            raise
        if reply.usage.cost_usd or reply.status != HTTPStatus.OK:
            charge.was(reply.usage.cost_usd)
        return reply

    def judged(self, wrong: str) -> None:
        """It is asked again all the same."""

    async def aclose(self) -> None:
        """It holds nothing: connections are the gateway's."""

    async def _taken(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Reply:
        """The reply to the first way of asking that is taken; if none is, to the last, which has the least to be refused for."""
        until, ways = time.monotonic() + limits.seconds, self._dialect.ways
        way = self._way
        while True:
            asked = ways[way](self._model, prompt, schema, limits)
            body = msgspec.json.encode(asked.body)
            reply = await self._paid(asked.path, body, max(until - time.monotonic(), 0.0))
            if reply.status not in NOT_TAKEN or way + 1 == len(ways):
                break
            log.info("tracker_request_not_taken", backend=self._name, way=way, reason=fault_in(reply.body))
            way += 1
        if reply.status == HTTPStatus.OK:
            self._way = way
        return reply

    def _text(self, body: bytes) -> str:
        try:
            return self._dialect.text(msgspec.json.decode(body))
        except NoAnswer as error:
            raise Unavailable(f"provider {self._provider} gave no answer: {error}.", field=self._field) from None
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            raise Unavailable(f"provider {self._provider} answered, but with no text in it.", field=self._field) from None

    def _refused(self, reply: Reply) -> Unavailable | InvalidInput:
        said = fault_in(reply.body)
        message = f"provider {self._provider} answered {reply.status}" + (f": {said}" if said else ".")
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            return Unavailable(message, field=self._field)
        hint = f"Check the model {self._model!r}: the server must know it, and answer by JSON schema."
        return InvalidInput(message, field=self._field, hint=hint)

    @property
    def _field(self) -> str:
        return f"tracker.models.{self._name}"
