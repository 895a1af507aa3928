"""The way out for programs that know no proxy: they look a name up, and connect to the address that they are told.

The address is one of the sandbox's own loopback and stands for the name (names.py), so such a connection is a CONNECT request in
other words: to this name, on the port that it came in by, subject to the same checks. What passes is not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

from supervisord_agents.gateway import egress
from supervisord_agents.gateway.names import MAX_NAMES, Names
from supervisord_agents.gateway.questions import Unnamed, answer
from supervisord_agents.gateway.refusal import Refusal, how_to_allow
from supervisord_agents.hosts import DEFAULT_PORT, AllowedHosts

MAX_TOLD = 64
"""Names of a task that are remembered as told: programs ask for one again and again."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)

Tell = Callable[[str], None]
"""A line for the log of the task."""
Connect = Callable[[str, int], Awaitable[egress.Streams]]
"""Host and port to a connection; raises Refusal."""


class Direct:
    """The names of one worker, and the connections to what they stand for."""

    def __init__(self, allowed: AllowedHosts, connect: Connect, idle_s: float) -> None:
        """`connect` checks what it is asked for; `idle_s` is as for `egress.relay`."""
        self._allowed = allowed
        self._connect = connect
        self._idle_s = idle_s
        self._names = Names(allowed.names)
        self._told: set[str] = set()

    def forget(self) -> None:
        """What one task has asked for is nothing to the next one."""
        self._names.forget()
        self._told.clear()

    def reply(self, query: bytes, tell: Tell) -> bytes | None:
        """The answer to a packet or a message of DNS, if it gets one."""
        said = answer(query, self._look_up)
        if said is None:
            return None
        if said.name and said.name not in self._told:
            if len(self._told) < MAX_TOLD:
                self._told.add(said.name)
            tell(f"the gateway refused to look up {said.name}: {_why(said.name, said.why)}")
        return said.wire

    async def serve(self, near: egress.Streams, tell: Tell) -> None:
        """Carry a connection to the host that its address stands for, or reset it."""
        writer = near[1]
        address, port = writer.get_extra_info("sockname")[:2]
        host = self._names.name_of(address)
        if host is None:
            tell(f"the gateway refused a connection to {address}:{port}: this address stands for no name that was looked up.")
            _reset(writer)
            return
        try:
            far = await self._connect(host, port)
        except Refusal as refusal:
            tell(f"the gateway refused a connection to {host}:{port}: {refusal.message}")
            _reset(writer)
            return
        try:
            with contextlib.suppress(TimeoutError, ConnectionError):
                await egress.relay(near, far, self._idle_s)
        finally:
            far[1].close()

    def _look_up(self, name: str) -> str | Unnamed:
        if not self._allowed.on_any_port(name):
            return Unnamed.NOT_ALLOWED
        return self._names.address_of(name) or Unnamed.TOO_MANY


def _why(name: str, why: Unnamed | None) -> str:
    if why is Unnamed.TOO_MANY:
        return f"this task has asked for {MAX_NAMES} other names."
    return f"it is not allowed. {how_to_allow(name, DEFAULT_PORT)}"


def _reset(writer: asyncio.StreamWriter) -> None:
    """An error to whoever is at the other end, rather than an end without data."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
