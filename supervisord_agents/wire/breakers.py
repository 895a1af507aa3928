"""The part of the client protocol that is about circuit breakers."""

from __future__ import annotations

from typing import Literal

import msgspec

from supervisord_agents.wire.messages import Reply, Request

Kind = Literal["agent", "provider", "tracker"]
"""`tracker`: a model that words stories."""


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """Of an agent, a provider or a model of the tracker that has failed lately."""

    kind: Kind
    name: str
    state: str
    """`closed`, `open` or `half_open`."""
    failures: int
    """In a row."""
    limit: int
    """It opens at so many; 0: never."""
    failed_at: float
    """The last time."""
    tried_at: float = 0.0
    """Open: when one may be tried. 0.0: it is not open."""
    last: str = ""
    """The last failure."""


class Breakers(Request, tag="breakers", frozen=True):
    """All agents, providers and models of the tracker whose last attempts, calls and answers failed."""


class BreakersReply(Reply, frozen=True):
    breakers: list[BreakerView]


class ResetBreaker(Request, tag="reset_breaker", frozen=True):
    """A person says that it works again."""

    kind: Kind
    name: str


class ResetBreakerReply(Reply, frozen=True):
    breakers: list[BreakerView]
    """Those that are left."""
