"""The name server inside a worker's sandbox: the two sockets of port 53, served by the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from supervisord_agents.gateway.egress import Streams
from supervisord_agents.gateway.questions import MAX_QUERY_BYTES

BURST = 8
PAUSE_S = 0.04
"""So many packets are answered in one go, then none for this time: a worker that floods costs the daemon no more than that. What
comes meanwhile waits in the kernel, or is lost, as datagrams are."""
IDLE_S = 10.0
"""A TCP connection without a question is closed after this (RFC 7766, 6.2.3)."""

Reply = Callable[[bytes], bytes | None]


class Datagrams:
    """Answers packets that come in by a UDP socket, which is this one's own from now on."""

    def __init__(self, sock: socket.socket, reply: Reply) -> None:
        self._sock = sock
        self._reply = reply
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
        self._sock.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._on_readable)

    def _on_readable(self) -> None:
        for _ in range(BURST):
            try:
                packet, sender = self._sock.recvfrom(MAX_QUERY_BYTES + 1)
            except OSError:
                return
            if len(packet) <= MAX_QUERY_BYTES and (reply := self._reply(packet)) is not None:
                with contextlib.suppress(OSError):
                    self._sock.sendto(reply, sender)
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(PAUSE_S, self._listen)


async def serve_stream(streams: Streams, reply: Reply) -> None:
    """Answer the questions of a TCP connection, each with its length before it (RFC 1035, 4.2.2), until it ends or is idle."""
    reader, writer = streams
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(IDLE_S):
                length = int.from_bytes(await reader.readexactly(2), "big")
                if length > MAX_QUERY_BYTES:
                    return
                said = reply(await reader.readexactly(length))
                if said is None:
                    return
                writer.write(len(said).to_bytes(2, "big") + said)
                await writer.drain()
            await asyncio.sleep(PAUSE_S)
