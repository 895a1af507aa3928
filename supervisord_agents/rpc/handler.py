"""What the RPC server asks of the program behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire.messages import Item, Reply, Request, Subscribe


class Handler(Protocol):
    """Answers requests. A SupervisorError it raises is the client's answer; any other exception becomes INTERNAL."""

    async def handle(self, request: Request, peer: Peer) -> Reply:
        """The reply that METHODS names for the request; never a `hello` or `subscribe`. Cancelled if the client goes."""

    def subscribe(self, request: Subscribe, peer: Peer) -> AsyncGenerator[Item, None]:
        """The items of one stream, pulled no faster than the client reads; closed when the client goes."""
