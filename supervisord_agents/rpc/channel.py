"""The client's end of a connection: open calls by id, one stream at most."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import msgspec

from supervisord_agents.errors import Forbidden, InvalidInput, ProtocolError, SupervisorError, Unavailable
from supervisord_agents.rpc.endpoint import check_length
from supervisord_agents.rpc.faults import error_of
from supervisord_agents.wire.envelope import DECODE_ERRORS, NO_BODY, Answer, Call, answer_decoder, call_encoder
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES, FrameReader, frame
from supervisord_agents.wire.messages import Request, Subscribe

START_HINT = "Start it: `systemctl start agent-supervisor`, or run `agent-supervisor`."
LOST = "It is not known whether the call took effect."
LOST_HINT = "Look with `list` or `show`; a submit with a `key` can be repeated safely."
STREAM_ITEMS = 1_000
"""Unread items at which a stream stops the reading of its connection; the daemon then holds back."""
STREAM_BYTES = 8 * 1024 * 1024
"""Of unread items, likewise."""
FULL_QUEUE_RETRY_S = 0.01


class Channel(asyncio.Protocol):
    """A connection without its handshake, and so with frames of the default size until `allow` says more or less."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_frame_bytes = DEFAULT_MAX_FRAME_BYTES
        self._reader = FrameReader()
        self._last_id = 0
        self._calls: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._stream: _Stream | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._end: SupervisorError | None = None
        """Why nothing more can be called."""

    @classmethod
    async def open(cls, path: Path) -> Channel:
        """Connect; raises (saying what to do) Unavailable if nobody listens, Forbidden if this user may not."""
        sock = await _connected(path)
        _, channel = await asyncio.get_running_loop().create_unix_connection(cls, sock=sock)
        return channel

    def allow(self, max_frame_bytes: int) -> None:
        """Take and send frames of up to this size, which is the daemon's."""
        self._max_frame_bytes = self._reader.max_bytes = max_frame_bytes

    @property
    def ended(self) -> bool:
        return self._end is not None

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                self._received(answer_decoder.decode(payload))
        except (ProtocolError, *DECODE_ERRORS) as error:
            self._fail(ProtocolError(f"the supervisor's answer was not understood: {error}", kept=LOST))
            self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unavailable("the connection to the supervisor was lost.", kept=LOST, hint=LOST_HINT))

    # Calls

    async def call(self, request: Request) -> msgspec.Raw:
        """The body of the answer; raises the answer's error, or Unavailable if the connection ends first.

        To cancel it leaves the connection usable: the late answer is dropped.
        """
        id, data = self._encoded(request)
        future: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        self._calls[id] = future
        try:
            if not self._writable.is_set():
                await self._until_writable()
            self._transport.write(data)
            return await future
        finally:
            del self._calls[id]
            future.cancel()

    async def stream(self, request: Subscribe) -> AsyncGenerator[msgspec.Raw, None]:
        """The bodies of the items, as they come; read no faster than they are taken."""
        id, data = self._encoded(request)
        self._stream = stream = _Stream(id, self._transport)
        await self._until_writable()
        self._transport.write(data)
        while (body := await stream.take()) is not None:
            yield body

    def close(self) -> None:
        """End the connection; open calls raise Unavailable."""
        self._fail(Unavailable("this client was closed.", kept=LOST))
        self._transport.close()

    def _encoded(self, request: Request) -> tuple[int, bytes]:
        if self._end is not None:
            raise self._end
        self._last_id += 1
        try:
            payload = call_encoder.encode(Call(self._last_id, request))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidInput(f"this cannot be sent: {error}.") from error
        return self._last_id, frame(payload, self._max_frame_bytes)

    async def _until_writable(self) -> None:
        while not self._writable.is_set() and self._end is None:
            await self._writable.wait()
        if self._end is not None:
            raise self._end

    def _received(self, answer: Answer) -> None:
        error = error_of(answer.error) if answer.error is not None else None
        if (future := self._calls.get(answer.id)) is not None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            elif answer.body != NO_BODY:
                future.set_result(answer.body)
        elif answer.id < 0:
            self._fail(error or ProtocolError("the supervisor closed the connection without a reason."))
        elif (stream := self._stream) is not None and answer.id == stream.id:
            stream.put(answer.body if answer.body != NO_BODY else None, error)

    def _fail(self, error: SupervisorError) -> None:
        """Nothing more can be called, and nothing more will be answered. The first reason stands."""
        if self._end is not None:
            return
        self._end = error
        self._writable.set()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)
        if self._stream is not None:
            self._stream.put(None, error)


class _Stream:
    """Items not yet taken."""

    def __init__(self, id: int, transport: asyncio.Transport) -> None:
        self.id = id
        self._transport = transport
        self._items: deque[msgspec.Raw] = deque()
        self._bytes = 0
        self._ended = False
        self._error: SupervisorError | None = None
        self._something = asyncio.Event()
        self._paused = False

    def put(self, body: msgspec.Raw | None, error: SupervisorError | None) -> None:
        """An item, or (without a body) the end."""
        if self._ended:
            return
        if body is None:
            self._ended, self._error = True, error
        else:
            self._items.append(body)
            self._bytes += len(memoryview(body))
        if (len(self._items) >= STREAM_ITEMS or self._bytes >= STREAM_BYTES) and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._something.set()

    async def take(self) -> msgspec.Raw | None:
        """The next item; None at the end; raises the stream's error once all items before it are taken."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._something.clear()
            await self._something.wait()
        body = self._items.popleft()
        self._bytes -= len(memoryview(body))
        if self._paused and not self._items:
            self._paused = False
            self._transport.resume_reading()
        return body


async def _connected(path: Path) -> socket.socket:
    """A connected socket. connect(2) on a Unix socket is done at once, or fails with EAGAIN while the daemon's queue is full."""
    check_length(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.connect(str(path))
                return sock
            except BlockingIOError:
                await asyncio.sleep(FULL_QUEUE_RETRY_S)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _unreachable(path, error) from error
        raise


def _unreachable(path: Path, error: OSError) -> SupervisorError:
    if isinstance(error, PermissionError):
        return Forbidden(
            "this user may not open the supervisor's socket.",
            field=str(path),
            hint="Join the socket's group (see `ls -l` of it) and log in again, or run your own `agent-supervisor`.",
        )
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return Unavailable("no supervisor listens here.", field=str(path), hint=START_HINT)
    return Unavailable(f"the supervisor cannot be reached: {error.strerror}.", field=str(path), hint=START_HINT)
