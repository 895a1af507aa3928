"""Submits of a handler that does its work at once and promises the answer, as the daemon's does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import DiskFull, QueueFull, SupervisorError
from supervisord_agents.rpc.client import Client
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.rpc.server import Server
from supervisord_agents.wire import messages as m
from tests.support.rpc import MAX_FRAME_BYTES, CannedHandler, RawClient

REPLY = m.SubmitReply(graph="g1", tasks=["g1.a"])
TASKS = [{"id": "a"}]
UNREAD_BYTES = MAX_FRAME_BYTES - 1024
"""Far more than a socket and a transport take before their reader must read."""


class PromisingHandler(CannedHandler):
    """Each submit's future is in `promised`; the keys `refuse` and `break` fail at once."""

    def __init__(self) -> None:
        super().__init__()
        self.promised: asyncio.Queue[asyncio.Future[m.Reply]] = asyncio.Queue()
        self.began = asyncio.Event()
        self.huge_bytes = UNREAD_BYTES

    def handle(self, request: m.Request, peer: Peer) -> Awaitable[m.Reply]:
        if not isinstance(request, m.Submit):
            self.began.set()
            return super().handle(request, peer)
        if request.key == "refuse":
            raise self.error
        if request.key == "break":
            raise RuntimeError("the handler broke")
        future: asyncio.Future[m.Reply] = asyncio.get_running_loop().create_future()
        self.promised.put_nowait(future)
        return future


@pytest.fixture
def handler() -> PromisingHandler:
    return PromisingHandler()


async def test_what_is_refused_at_once_is_told_and_the_connection_stays(
    handler: PromisingHandler, server: Server, socket_path: Path
) -> None:
    handler.error = QueueFull("too many.", hint="Wait.")
    async with await Client.connect(socket_path) as client:
        with pytest.raises(QueueFull, match="too many"):
            await client.submit([TaskSpec()], key="refuse")
        with pytest.raises(SupervisorError, match="reference"):
            await client.submit([TaskSpec()], key="break")
        submit = asyncio.create_task(client.submit([TaskSpec()]))
        (await handler.promised.get()).set_result(REPLY)
        assert await submit == REPLY


async def test_each_is_answered_when_its_own_promise_is_kept_or_broken(
    handler: PromisingHandler, server: Server, socket_path: Path
) -> None:
    async with await Client.connect(socket_path) as client:
        first = asyncio.create_task(client.submit([TaskSpec()]))
        kept = await handler.promised.get()
        second = asyncio.create_task(client.submit([TaskSpec()]))
        (await handler.promised.get()).set_exception(DiskFull("no room."))
        with pytest.raises(DiskFull, match="no room"):
            await second
        assert not first.done()
        kept.set_result(REPLY)
        assert await first == REPLY


async def test_a_client_that_leaves_ends_the_promise(handler: PromisingHandler, server: Server, socket_path: Path) -> None:
    client = await RawClient.connect(socket_path)
    client.call(1, type="submit", tasks=TASKS)
    future = await handler.promised.get()
    await client.close()
    await asyncio.wait([future])
    assert future.cancelled()


async def unreading(handler: PromisingHandler, socket_path: Path) -> tuple[RawClient, asyncio.Future[m.Reply]]:
    """A client with an open submit, 1, that does not read the large answer to its call 2."""
    client = await RawClient.connect(socket_path)
    client.call(1, type="submit", tasks=TASKS)
    future = await handler.promised.get()
    client.call(2, type="logs", task="huge")
    await handler.began.wait()
    await asyncio.sleep(0)
    return client, future


async def test_an_answer_waits_until_its_client_reads(handler: PromisingHandler, server: Server, socket_path: Path) -> None:
    client, future = await unreading(handler, socket_path)
    future.set_result(REPLY)
    assert [(await client.answer())[0] for _ in range(2)] == [2, 1]
    await client.close()


async def test_a_stop_gives_the_answer_that_waited(handler: PromisingHandler, server: Server, socket_path: Path) -> None:
    client, future = await unreading(handler, socket_path)
    future.set_result(REPLY)
    stopping = asyncio.create_task(server.aclose())
    answers = [await client.answer() for _ in range(2)]
    assert [(id, error) for id, error, _, _ in answers] == [(2, None), (1, None)]
    assert await client.at_end()
    await stopping
    await client.close()
