"""The worker's side of a CONNECT tunnel: the connection that the request came in by, from now on as plain bytes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from aiohttp import web
from aiohttp.http_websocket import WebSocketReader

from supervisord_agents.gateway import egress

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"


async def serve_tunnel(request: web.BaseRequest, far: egress.Streams, idle_s: float) -> web.StreamResponse:
    """Answer a CONNECT request and relay until either side ends or `idle_s` passes; the connection is closed then."""
    transport = request.transport
    if transport is None:
        far[1].close()
        raise ConnectionResetError("the worker went away")
    near = _near(request, transport)
    try:
        near[1].write(ESTABLISHED)
        with contextlib.suppress(TimeoutError, ConnectionError):
            await egress.relay(near, far, idle_s)
    finally:
        # What was written still goes out before the connections close.
        far[1].close()
        near[1].close()
        request.protocol.force_close()
    return web.Response()


def _near(request: web.BaseRequest, transport: asyncio.Transport) -> egress.Streams:
    reader = asyncio.StreamReader(limit=egress.CHUNK_BYTES)
    # Lets a full reader pause the connection.
    reader.set_transport(transport)
    # An upgraded connection hands its bytes to a parser; ours has the two methods that are called, as a WebSocket's does.
    request.protocol.set_parser(cast(WebSocketReader, _Bytes(reader)))
    protocol = cast(asyncio.StreamReaderProtocol, request.protocol)
    return reader, asyncio.StreamWriter(transport, protocol, None, asyncio.get_running_loop())


class _Bytes:
    """The parser of a stream that has no format."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()
