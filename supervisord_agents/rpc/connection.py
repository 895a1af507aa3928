"""One client's connection, at the daemon's end."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol, cast

import structlog

from supervisord_agents.errors import ErrorCode, InvalidInput, ProtocolError, SupervisorError, Unavailable
from supervisord_agents.rpc.calls import BadCall, read_call
from supervisord_agents.rpc.faults import reply_of
from supervisord_agents.rpc.handler import Handler
from supervisord_agents.rpc.peer import Peer, peer_of
from supervisord_agents.rpc.turns import Turns
from supervisord_agents.wire.advice import Estimate
from supervisord_agents.wire.changes import Changes
from supervisord_agents.wire.envelope import Call, call_encoder
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.wire.messages import (
    PROTOCOL_VERSION,
    Cancel,
    GetLogs,
    GetResult,
    Hello,
    HelloReply,
    Item,
    ListTasks,
    Reply,
    Request,
    Retry,
    Show,
    Submit,
    Subscribe,
    Wait,
)

MAX_OPEN_CALLS = 1_000
"""Of one connection; at so many the daemon reads no more from it until one is answered."""
MAX_OPEN_BYTES = 64 * 1024 * 1024
"""Of all frames of its open calls together; at so many likewise."""
BEGIN_AT_ONCE = 32
"""Calls, or items of a stream, of one connection; others, and what else the daemon has to do, come before more of them."""
MAX_LOOKING = 4
"""Calls of a connection that are worked on at a time where answers may be large, but for waits; the others take turns."""
MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""Answers made for a client that does not read them; with more it is dropped."""
CONNECTION_ID = -1
"""The id of an error that is about the connection, not about a call; the daemon closes after it."""
LINGER_S = 2.0
"""How long a refused client may take to read why and to close. Closed at once, its next write could fail before it has read."""

_LOOKS = (Changes, Estimate, GetLogs, GetResult, ListTasks, Show)
log = structlog.get_logger()


class Host(Protocol):
    """What a connection needs of its server."""

    handler: Handler
    hello: HelloReply
    max_frame_bytes: int
    turns: Turns
    """For calls that hold the loop for long."""

    def enter(self, connection: Connection, peer: Peer) -> None:
        """Count it in; raises SupervisorError if this peer is not let in."""

    def leave(self, connection: Connection) -> None:
        """It is closed."""


class Connection(asyncio.Protocol):
    """Reads calls, runs each as a task of its own (but for submits, see Handler), writes answers as they come.

    While the client does not read its answers (the transport is paused), nothing more is read from it, no call is begun and no
    stream is pulled. A client that breaks the protocol is answered what it had asked before, then gets one error and is closed.
    """

    peer: Peer
    _transport: asyncio.Transport

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(host.max_frame_bytes)
        self._unread: deque[bytes | ProtocolError] = deque()
        """Payloads, and at last why there are no more."""
        self._calls: dict[int, tuple[Call, asyncio.Future[Any]]] = {}
        self._unsent: deque[tuple[Call, asyncio.Future[Reply]]] = deque()
        """Submits that are answered while the client does not read."""
        self._sizes: dict[int, int] = {}
        """Bytes of the frames of open calls, and their sum."""
        self._open_bytes = 0
        self._unread_bytes = 0
        """Of answers that wait until the client reads."""
        self._looking = asyncio.Semaphore(MAX_LOOKING)
        self._has_more = False
        """Calls that have come, and are begun in another turn of the loop."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._greeted = False
        self._ended = False
        self._last: tuple[int, SupervisorError] | None = None
        """The error that ends the connection once the calls under way are answered."""
        self._reading = True
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        try:
            self.peer = peer_of(transport.get_extra_info("socket").fileno())
            self._host.enter(self, self.peer)
        except SupervisorError as error:
            self._refuse(error)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._take(data)
        self._begin_calls()

    def _take(self, data: bytes = b"") -> None:
        """Some of the frames that have come; the reader keeps the others."""
        try:
            self._unread.extend(itertools.islice(self._reader.feed(data), BEGIN_AT_ONCE))
        except ProtocolError as error:
            self._unread.append(error)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._set_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        while self._unsent and self._writable.is_set():
            self._send_answer(*self._unsent.popleft())
        self._begin_calls()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._drop_calls()
        self._host.leave(self)
        self.closed.set_result(None)

    # Calls

    def _begin_calls(self) -> None:
        for _ in range(BEGIN_AT_ONCE):
            if not self._unread or not self._may_begin():
                break
            self._begin(self._unread.popleft())
        if not self._unread and not self._ended:
            self._take()
        self._set_reading()
        if self._unread and self._may_begin() and not self._has_more:
            self._has_more = True
            self._host.turns.call(self._begin_more)

    def _begin_more(self) -> None:
        self._has_more = False
        self._begin_calls()

    def _may_begin(self) -> bool:
        room = len(self._calls) < MAX_OPEN_CALLS and self._open_bytes < MAX_OPEN_BYTES
        return room and self._writable.is_set()

    def _set_reading(self) -> None:
        wanted = self._ended or (not self._unread and self._may_begin())
        if wanted == self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _begin(self, payload: bytes | ProtocolError) -> None:
        if isinstance(payload, ProtocolError):
            self._refuse(payload)
            return
        try:
            call = read_call(payload)
        except BadCall as bad:
            if bad.id is None or not self._greeted:
                self._refuse(bad.error, CONNECTION_ID if bad.id is None else bad.id)
            else:
                self._send_error(bad.id, bad.error)
            return
        if isinstance(call.request, Hello):
            self._greet(call.id, call.request)
        elif not self._greeted:
            self._refuse(ProtocolError("the first call on a connection must be `hello`."), call.id)
        elif call.id in self._calls:
            self._refuse(ProtocolError(f"the id {call.id} is that of an open call.", field="id"))
        else:
            self._sizes[call.id] = len(payload)
            self._open_bytes += len(payload)
            if isinstance(call.request, Submit):
                self._submit(call)
            else:
                self._calls[call.id] = call, self._loop.create_task(self._serve(call))

    def _greet(self, id: int, request: Hello) -> None:
        if request.version != PROTOCOL_VERSION:
            error = InvalidInput(
                f"this daemon speaks version {PROTOCOL_VERSION} of the protocol, the client version {request.version}.",
                field="version",
                hint=f"Use the agentctl of this daemon ({self._host.hello.daemon}), or restart the daemon after an upgrade.",
            )
            self._refuse(error, id)
            return
        self._greeted = True
        log.debug("client", name=request.client, uid=self.peer.uid, pid=self.peer.pid)
        self._write(self._encoded(id, self._host.hello))

    def _submit(self, call: Call) -> None:
        try:
            answer = asyncio.ensure_future(self._host.handler.handle(call.request, self.peer))
        except Exception as error:
            self._open_bytes -= self._sizes.pop(call.id)
            self._send_failure(call, error)
            return
        self._calls[call.id] = call, answer
        answer.add_done_callback(partial(self._answered, call))

    def _answered(self, call: Call, answer: asyncio.Future[Reply]) -> None:
        if answer.cancelled():
            return
        answer.exception()  # an error that nobody asks for is logged as forgotten
        if call.id not in self._calls:
            return
        if self._writable.is_set():
            self._send_answer(call, answer)
        else:
            self._unsent.append((call, answer))

    def _send_answer(self, call: Call, answer: asyncio.Future[Reply]) -> None:
        try:
            self._write(self._encoded_reply(call, answer.result()))
        except Exception as error:
            self._send_failure(call, error)
        self._over(call.id)

    async def _serve(self, call: Call) -> None:
        try:
            await self._until_writable()
            if isinstance(call.request, Subscribe):
                await self._turn()
                await self._stream(call.id, call.request)
            elif isinstance(call.request, _LOOKS):
                async with self._looking:
                    await self._turn()
                    await self._answer(call)
            else:
                await self._answer(call)
        except Exception as error:
            self._send_failure(call, error)
        finally:
            self._over(call.id)

    async def _answer(self, call: Call) -> None:
        reply = await self._host.handler.handle(call.request, self.peer)
        payload = self._encoded_reply(call, reply)
        if not self._writable.is_set():
            self._unread_bytes += len(payload)
            try:
                self._drop_if_deaf()
                await self._until_writable()
            finally:
                self._unread_bytes -= len(payload)
        self._write(payload)

    def _drop_if_deaf(self) -> None:
        if self._unread_bytes > MAX_UNREAD_BYTES and not self._transport.is_closing():
            log.warning("client_dropped", uid=self.peer.uid, pid=self.peer.pid, unread_bytes=self._unread_bytes)
            self._transport.abort()

    def _over(self, id: int) -> None:
        self._open_bytes -= self._sizes.pop(id, 0)
        if self._calls.pop(id, None) is None:
            return
        if not self._ended:
            if self._unread or not self._reading:
                self._begin_calls()
        elif self._last is not None and not self._calls:
            self._hang_up(*self._last)

    async def _stream(self, id: int, request: Subscribe) -> None:
        async with aclosing(self._host.handler.subscribe(request, self.peer)) as items:
            numbers = itertools.count(1)
            async for item in items:
                self._write(self._encoded(id, item, more=True))
                await self._until_writable()
                if next(numbers) % BEGIN_AT_ONCE == 0:
                    await self._turn()
        self._write(call_encoder.encode((id, None, None, False)))

    async def _turn(self) -> None:
        """Return in a turn of the loop that is this call's own, while the client reads."""
        await self._host.turns.take()
        while not self._writable.is_set():
            await self._until_writable()
            await self._host.turns.take()

    async def _until_writable(self) -> None:
        while not self._writable.is_set():
            await self._writable.wait()

    # Answers

    def _encoded_reply(self, call: Call, reply: Reply) -> bytes:
        try:
            return self._encoded(call.id, reply)
        except InvalidInput as error:
            raise _too_large(call.request, error) from error

    def _encoded(self, id: int, body: Reply | Item, more: bool = False) -> bytes:
        payload = call_encoder.encode((id, None, body, more))
        if len(payload) > self._host.max_frame_bytes:
            raise InvalidInput(
                f"the answer would be {len(payload)} bytes, the limit of a frame is {self._host.max_frame_bytes}.",
                hint="Ask for less at a time, or read the file that `show` names.",
            )
        return payload

    def _send_failure(self, call: Call, error: Exception) -> None:
        self._send_error(call.id, error if isinstance(error, SupervisorError) else _internal(call, error))

    def _send_error(self, id: int, error: SupervisorError) -> None:
        reply = reply_of(error)
        self._write(call_encoder.encode((id, reply, None, False)))

    def _write(self, payload: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame(payload, self._host.max_frame_bytes))

    # Ends

    def _refuse(self, error: SupervisorError, id: int = CONNECTION_ID) -> None:
        """Begin no more calls, end those that may last, answer the others, then give this error and hang up."""
        self._ended = True
        self._last = id, error
        self._unread.clear()
        for lasting, (call, task) in list(self._calls.items()):
            if isinstance(call.request, Wait | Subscribe):
                del self._calls[lasting]
                task.cancel()
        if not self._calls:
            self._hang_up(id, error)

    def _hang_up(self, id: int, error: SupervisorError) -> None:
        """One error, then the end; what the client still sends is thrown away until it closes."""
        if self._transport.is_closing():
            return
        self._send_error(id, error)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._set_reading()
        timer = self._loop.call_later(LINGER_S, self._transport.abort)
        self.closed.add_done_callback(lambda _: timer.cancel())

    def _drop_calls(self) -> None:
        self._unread.clear()
        self._unsent.clear()
        calls, self._calls = self._calls, {}
        for _, task in calls.values():
            task.cancel()

    def end_waits(self) -> list[asyncio.Future[Any]]:
        """Begin no more calls; answer those that may last (waits and streams); gives the others, which are about to end."""
        self._ended = True
        self._unread.clear()
        for id, (call, task) in list(self._calls.items()):
            if isinstance(call.request, Wait | Subscribe):
                self._give_up(id, task, Unavailable("the supervisor is stopping.", hint="Ask again when it is back."))
        return [task for _, task in self._calls.values()]

    def close(self) -> None:
        """Answer what is still open, then close once all answers are written."""
        self._ended = True
        while self._unsent:
            self._send_answer(*self._unsent.popleft())
        for id, (_, task) in list(self._calls.items()):
            self._give_up(
                id, task, Unavailable("the supervisor stopped before this call was done.", hint="Look whether it took effect.")
            )
        self._transport.close()

    def abort(self) -> None:
        """Close now, whatever is unwritten."""
        self._transport.abort()

    def _give_up(self, id: int, task: asyncio.Future[Any], error: Unavailable) -> None:
        del self._calls[id]
        task.cancel()
        self._send_error(id, error)


def _too_large(request: Request, error: InvalidInput) -> InvalidInput:
    """For a change that is made, and only cannot be told of."""
    if not isinstance(request, Submit | Cancel | Retry):
        return error
    return InvalidInput(
        error.message,
        kept="It was carried out all the same: only the answer is too large.",
        hint="See `agentctl list`, and raise daemon.max_frame_bytes.",
    )


def _internal(call: Call, error: Exception) -> SupervisorError:
    """For an exception that nobody expected: the traceback goes to the log, a reference to it to the client."""
    reference = secrets.token_hex(4)
    log.error("call_failed", reference=reference, method=type(call.request).__struct_config__.tag, exc_info=error)
    return SupervisorError(
        f"the supervisor failed to do this (reference {reference}).",
        hint=f"This is a bug; its log has the details: journalctl -u agent-supervisor | grep {reference}",
        code=ErrorCode.INTERNAL,
    )
