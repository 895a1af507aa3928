"""The bridge's connection to the daemon: made when first needed, made again when lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from supervisord_agents.errors import QueueFull, Unavailable
from supervisord_agents.rpc.client import Client

PATIENCE_S = 20.0
"""How long a call waits for a daemon that is away: enough for a restart with recovery, too little for a client to give up."""
ANSWER_WITHIN_S = 30.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

T = TypeVar("T")
Away = Callable[[str], Awaitable[None]]
"""Told, in words, each time the daemon was found away."""


class Link:
    """One connection, shared by all calls; every call may be repeated, so each must be harmless the second time."""

    def __init__(self, socket: Path, patience_s: float = PATIENCE_S) -> None:
        self._socket = socket
        self.patience_s = patience_s
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def call(
        self,
        ask: Callable[[Client], Awaitable[T]],
        *,
        away: Away,
        patience_s: float = math.inf,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> T:
        """What `ask` gives; repeated while the daemon is away, for up to `patience_s` and the link's own patience.

        Raises Unavailable when the patience is used up, and what a daemon that is there answers (also QueueFull) at once.
        """
        until = asyncio.get_running_loop().time() + min(self.patience_s, patience_s)
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await self._once(ask, answer_within_s)
            except QueueFull:
                raise
            except Unavailable as error:
                if asyncio.get_running_loop().time() + pause > until:
                    raise
                await away(f"the supervisor is away, trying again: {error.message}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _once(self, ask: Callable[[Client], Awaitable[T]], answer_within_s: float) -> T:
        client = await self._connected()
        try:
            async with asyncio.timeout(answer_within_s):
                return await ask(client)
        except TimeoutError:
            await client.aclose()
            raise Unavailable(
                f"the supervisor gave no answer within {answer_within_s:.0f} s.",
                hint="It is very busy or stopped: see `agentctl status` and its log.",
            ) from None

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None or self._client.lost:
                self._client = await Client.connect(self._socket, name="mcp")
            return self._client
