"""What one end does with an other end that breaks the protocol, or speaks another version of it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import ErrorCode, Forbidden, InvalidInput, ProtocolError
from supervisord_agents.rpc.client import Client
from supervisord_agents.rpc.server import Server
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES, FrameReader, frame
from tests.support.rpc import MAX_FRAME_BYTES, CannedHandler, RawClient

OVERSIZE = struct.pack("<I", MAX_FRAME_BYTES + 1)
HELLO = {"version": m.PROTOCOL_VERSION, "daemon": "x", "pid": 1, "epoch": "e"}
Answers = Callable[[int, dict[str, Any]], bytes]
encode = msgspec.msgpack.encode


class _Answering(asyncio.Protocol):
    """A daemon's end of a connection that sends, for each call `(id, request)`, the bytes that `answers` makes."""

    _transport: asyncio.Transport

    def __init__(self, answers: Answers, ended: list[asyncio.Future[None]]) -> None:
        self._answers = answers
        self._reader = FrameReader(2**32)
        self._ended = asyncio.get_running_loop().create_future()
        ended.append(self._ended)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for payload in self._reader.feed(data):
            self._transport.write(self._answers(*msgspec.msgpack.decode(payload)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set_result(None)


@asynccontextmanager
async def daemon_that_answers(path: Path, answers: Answers) -> AsyncIterator[None]:
    """A socket at which such answers are given; clients must be closed first."""
    ended: list[asyncio.Future[None]] = []
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Answering(answers, ended), path)
    async with server:
        yield
        await asyncio.gather(*ended)


def greeting(id: int, **changes: Any) -> bytes:
    return frame(encode([id, None, {**HELLO, **changes}, False]))


def after_hello(answer: Callable[[int], bytes]) -> Answers:
    """Greets well, then answers so."""
    return lambda id, request: greeting(id) if request["type"] == "hello" else answer(id)


# The handshake


async def test_the_client_always_tells_its_version(socket_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    def answers(id: int, request: dict[str, Any]) -> bytes:
        heard.append(request)
        return greeting(id)

    async with daemon_that_answers(socket_path, answers), await Client.connect(socket_path, name="me"):
        assert heard == [{"type": "hello", "version": m.PROTOCOL_VERSION, "client": "me"}]


async def test_the_client_refuses_a_daemon_of_another_version(socket_path: Path) -> None:
    other = m.PROTOCOL_VERSION + 1
    async with daemon_that_answers(socket_path, lambda id, _: greeting(id, version=other, daemon="9.9")):
        with pytest.raises(InvalidInput, match=f"version {other} of the protocol") as caught:
            await Client.connect(socket_path)
    assert caught.value.field == "version"
    assert "9.9" in caught.value.hint


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("version", [{}, {"version": m.PROTOCOL_VERSION - 1}])
async def test_the_daemon_refuses_a_client_of_another_version_or_of_none(socket_path: Path, version: dict[str, int]) -> None:
    raw = await RawClient.connect(socket_path, hello=False)
    raw.call(7, type="hello", **version)
    id, error = await raw.error()
    assert (id, error["code"], error["field"]) == (7, "INVALID", "version")
    assert await raw.at_end()
    await raw.close()


async def test_a_user_who_is_not_let_in_is_told_so_and_not_to_try_again(
    handler: CannedHandler, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(handler, epoch="e")
    monkeypatch.setattr(server, "_uids", frozenset[int]())
    await server.start(socket_path)
    with pytest.raises(Forbidden, match="may not use this supervisor") as caught:
        await Client.connect(socket_path)
    assert caught.value.field == "daemon.allowed_uids"
    await server.aclose()


# Sizes


async def test_the_daemon_s_limit_holds_in_both_directions_for_the_client(handler: CannedHandler, socket_path: Path) -> None:
    larger = 3 * DEFAULT_MAX_FRAME_BYTES
    server = Server(handler, epoch="e", max_frame_bytes=larger)
    await server.start(socket_path)
    async with await Client.connect(socket_path) as client:
        assert client.hello.max_frame_bytes == larger
        await client.submit([TaskSpec(input={"text": "x" * (larger - 1000)})])
        handler.huge_bytes = larger - 1000
        assert len((await client.logs("huge")).data) == larger - 1000
    await server.aclose()


async def test_a_daemon_that_tells_no_limit_has_the_default(socket_path: Path) -> None:
    async with daemon_that_answers(socket_path, after_hello(lambda _: b"")), await Client.connect(socket_path) as client:
        assert client.hello.max_frame_bytes == DEFAULT_MAX_FRAME_BYTES
        with pytest.raises(ProtocolError, match=f"the limit is {DEFAULT_MAX_FRAME_BYTES}"):
            await client.show("x" * DEFAULT_MAX_FRAME_BYTES)


CHANGES: list[Callable[[Client], Awaitable[m.Reply]]] = [
    lambda client: client.submit([TaskSpec(id="huge")]),
    lambda client: client.cancel("huge"),
    lambda client: client.retry("huge"),
]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("change", CHANGES, ids=["submit", "cancel", "retry"])
async def test_a_change_whose_answer_is_too_large_says_that_it_was_made(
    socket_path: Path, change: Callable[[Client], Awaitable[m.Reply]]
) -> None:
    async with await Client.connect(socket_path) as client:
        with pytest.raises(InvalidInput, match="the limit of a frame") as caught:
            await change(client)
        assert "was carried out" in caught.value.kept
        with pytest.raises(InvalidInput, match="the limit of a frame") as caught:
            await client.logs("huge")
        assert caught.value.kept == ""


@pytest.mark.usefixtures("server")
async def test_an_error_that_repeats_what_was_sent_is_cut_to_fit(socket_path: Path) -> None:
    raw = await RawClient.connect(socket_path)
    raw.payload(encode([1, {"type": "status", "x" * (MAX_FRAME_BYTES - 100): 1}]))
    id, error = await raw.error()
    assert (id, error["code"], error["field"][:3], error["field"][-1]) == (1, "INVALID", "xxx", "…")
    raw.call(2, type="status")
    assert (await raw.answer())[:2] == [2, None]
    await raw.close()


# A client that breaks the protocol


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("garbage", [OVERSIZE, frame(b"\xc1")], ids=["length", "payload"])
async def test_what_came_before_garbage_is_answered(handler: CannedHandler, socket_path: Path, garbage: bytes) -> None:
    raw = await RawClient.connect(socket_path)
    calls = [frame(encode([id, {"type": "cancel", "task": f"t{id}"}])) for id in (1, 2)]
    raw.writer.write(b"".join(calls) + garbage)
    assert [(await raw.answer())[:2] for _ in calls] == [[1, None], [2, None]]
    id, error = await raw.error()
    assert (id, error["code"]) == (-1, "INVALID")
    assert await raw.at_end()
    assert handler.requests == [m.Cancel(task="t1"), m.Cancel(task="t2")]
    await raw.close()


@pytest.mark.usefixtures("server")
async def test_garbage_ends_waits_and_streams_and_lets_other_calls_end(handler: CannedHandler, socket_path: Path) -> None:
    raw = await RawClient.connect(socket_path)
    raw.call(1, type="wait", tasks=["hold"])
    raw.call(2, type="subscribe", graph="hold")
    raw.call(3, type="cancel", task="hold")
    await handler.until_held(3)
    raw.writer.write(OVERSIZE)
    await handler.until_held(1)
    handler.released.set()
    assert (await raw.answer())[:2] == [3, None]
    assert (await raw.error())[0] == -1
    assert await raw.at_end()
    await raw.close()


@pytest.mark.usefixtures("server")
async def test_a_client_that_goes_after_garbage_ends_its_calls(handler: CannedHandler, socket_path: Path) -> None:
    raw = await RawClient.connect(socket_path)
    raw.call(1, type="cancel", task="hold")
    await handler.until_held(1)
    raw.writer.write(OVERSIZE)
    await raw.close()
    await handler.until_held(0)


# A daemon that breaks the protocol

BROKEN_ANSWERS: dict[str, Callable[[int], bytes]] = {
    "no MessagePack": lambda id: b"\xc1",
    "no answer": lambda id: encode({"id": id}),
    "an error that is no UTF-8": lambda id: b"\x94" + encode(id) + b"\x82\xa4code\xa1x\xa7message\xa1\xff\xc0\xc2",
    "nested without end": lambda id: b"\x94" + encode(id) + b"\xc0" + b"\x91" * 100_000 + b"\xc0\xc2",
    "a body that is none of the method": lambda id: encode([id, None, {"task": 1}, False]),
    "a body that is no UTF-8": lambda id: b"\x94" + encode(id) + b"\xc0\x81\xa5tasks\x91\xa1\xff\xc2",
}


@pytest.mark.parametrize("payload", BROKEN_ANSWERS.values(), ids=list(BROKEN_ANSWERS))
async def test_an_answer_that_is_none_is_a_typed_error(socket_path: Path, payload: Callable[[int], bytes]) -> None:
    answers = after_hello(lambda id: frame(payload(id)))
    async with daemon_that_answers(socket_path, answers), await Client.connect(socket_path) as client:
        with pytest.raises(ProtocolError, match="was not understood") as caught:
            await client.retry("t")
        assert caught.value.code is ErrorCode.INVALID


async def test_answers_before_garbage_are_given_to_who_waits_for_them(socket_path: Path) -> None:
    def answer(id: int) -> bytes:
        return frame(encode([id, None, {"tasks": ["g1.a"]}, False])) + struct.pack("<I", DEFAULT_MAX_FRAME_BYTES + 1)

    async with daemon_that_answers(socket_path, after_hello(answer)), await Client.connect(socket_path) as client:
        assert await client.retry("t") == m.RetryReply(tasks=["g1.a"])
        assert client.lost
