"""The RPC server: listens, lets clients in, and stops in order."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection
from pathlib import Path

import structlog

from supervisord_agents import __version__
from supervisord_agents.errors import Forbidden, Unavailable
from supervisord_agents.rpc.connection import Connection
from supervisord_agents.rpc.endpoint import Endpoint
from supervisord_agents.rpc.handler import Handler
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.rpc.turns import Turns
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES
from supervisord_agents.wire.messages import PROTOCOL_VERSION, HelloReply

BACKLOG = 1024
STOP_GRACE_S = 2.0
"""At the stop: for calls under way to end, and then for clients to read their answers."""

log = structlog.get_logger()


class Server:
    """Serves one Unix socket. Root, the daemon's own user, `allowed_uids` and members of `allowed_gids` are let in."""

    def __init__(
        self,
        handler: Handler,
        *,
        epoch: str,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        max_clients: int = 12_000,
        allowed_uids: Collection[int] = (),
        allowed_gids: Collection[int] = (),
    ) -> None:
        self.handler = handler
        self.hello = HelloReply(
            version=PROTOCOL_VERSION, daemon=__version__, pid=os.getpid(), epoch=epoch, max_frame_bytes=max_frame_bytes
        )
        self.max_frame_bytes = max_frame_bytes
        self.turns = Turns()
        self._max_clients = max_clients
        self._uids = frozenset({0, os.geteuid(), *allowed_uids})
        self._gids = frozenset(allowed_gids)
        self._clients: set[Connection] = set()
        self._endpoint: Endpoint | None = None
        self._server: asyncio.AbstractServer | None = None

    async def start(self, path: Path, sock: socket.socket | None = None) -> None:
        """Listen at `path`, or on a socket that is bound already (systemd's), which is then never unlinked.

        Raises Unavailable if another daemon answers at `path`, InvalidInput if it cannot be used.
        """
        endpoint = Endpoint.bind(path) if sock is None else Endpoint.given(sock)
        endpoint.sock.setblocking(False)
        loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=endpoint.sock, backlog=BACKLOG)

    async def aclose(self) -> None:
        """Accept nobody, answer every open call, close. Waits and streams end at once, other calls have STOP_GRACE_S."""
        if self._server is None or self._endpoint is None:
            return
        self._server.close()
        self._endpoint.remove()
        clients = list(self._clients)
        calls = [task for client in clients for task in client.end_waits()]
        if calls:
            await asyncio.wait(calls, timeout=STOP_GRACE_S)
        for client in clients:
            client.close()
        if clients:
            await asyncio.wait([client.closed for client in clients], timeout=STOP_GRACE_S)
        for client in self._clients.copy():
            client.abort()
        await self._server.wait_closed()
        self._server = None

    def enter(self, connection: Connection, peer: Peer) -> None:
        """Count a client in; raises Forbidden if it may not use this daemon, Unavailable if there are too many."""
        if peer.uid not in self._uids and self._gids.isdisjoint({peer.gid, *peer.groups}):
            log.warning("client_refused", uid=peer.uid, pid=peer.pid)
            raise Forbidden(
                f"uid {peer.uid} may not use this supervisor.",
                field="daemon.allowed_uids",
                hint="Add it to daemon.allowed_uids, or one of its groups to daemon.allowed_gids, and restart the supervisor.",
            )
        if len(self._clients) >= self._max_clients:
            log.warning("client_refused", clients=len(self._clients))
            raise Unavailable(
                f"{len(self._clients)} clients are connected, the limit is {self._max_clients}.",
                field="daemon.max_clients",
                hint="Try again later, or raise daemon.max_clients.",
            )
        self._clients.add(connection)

    def leave(self, connection: Connection) -> None:
        """A client has gone."""
        self._clients.discard(connection)
