"""What the RPC server asks of the program behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Protocol

from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire.messages import Item, Reply, Request, Subscribe


class Handler(Protocol):
    """Answers requests. A SupervisorError it raises is the client's answer; any other exception becomes INTERNAL."""

    def handle(self, request: Request, peer: Peer) -> Awaitable[Reply]:
        """The reply that METHODS names for the request; never a `hello` or `subscribe`. Cancelled if the client goes.

        For a `submit` this does its work at once and gives a future, or is a coroutine, which is run as a task of its own; for
        all else it is a coroutine, which is begun only while the client reads its answers.
        """

    def subscribe(self, request: Subscribe, peer: Peer) -> AsyncGenerator[Item, None]:
        """The items of one stream, pulled no faster than the client reads; closed when the client goes."""
