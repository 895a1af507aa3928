"""What a connection may have the daemon keep for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisord_agents.rpc import connection
from supervisord_agents.rpc.server import Server
from tests.support.rpc import CannedHandler, RawClient

pytestmark = pytest.mark.usefixtures("server")


async def test_calls_with_large_answers_take_turns_and_others_pass_by(handler: CannedHandler, socket_path: Path) -> None:
    raw = await RawClient.connect(socket_path)
    count = 3 * connection.MAX_LOOKING
    for id in range(1, count + 1):
        raw.call(id, type="logs", task="hold")
    await handler.until_held(connection.MAX_LOOKING)
    raw.call(1000, type="status")
    assert (await raw.answer())[:2] == [1000, None]
    assert handler.held == connection.MAX_LOOKING
    handler.released.set()
    assert {(await raw.answer())[0] for _ in range(count)} == set(range(1, count + 1))
    await raw.close()


async def test_no_more_is_read_while_the_open_calls_are_large(
    handler: CannedHandler, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_OPEN_BYTES", 1000)
    raw = await RawClient.connect(socket_path)
    for id in (1, 2, 3):
        raw.call(id, type="cancel", task="hold" + 600 * "x")
    await handler.until_held(2)
    other = await RawClient.connect(socket_path)
    other.call(1, type="status")
    assert (await other.answer())[:2] == [1, None]
    assert handler.held == 2
    handler.released.set()
    assert {(await raw.answer())[0] for _ in range(3)} == {1, 2, 3}
    await raw.close()
    await other.close()


async def test_a_client_that_does_not_read_what_it_waited_for_is_dropped(
    handler: CannedHandler, socket_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_UNREAD_BYTES", 1000)
    deaf = await RawClient.connect(socket_path)
    for id in range(1, 101):
        deaf.call(id, type="wait", tasks=["hold"])
    await handler.until_held(100)
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    handler.huge_bytes = 100_000
    [client] = server._clients
    for id in range(101, 121):
        deaf.call(id, type="logs", task="huge")
    while client._writable.is_set():
        await asyncio.sleep(0)
    handler.released.set()
    await client.closed
    assert handler.held == 0
    await deaf.close()
