"""A served socket with a canned handler; every test runs on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from supervisord_agents.rpc.server import Server
from tests.support.rpc import MAX_FRAME_BYTES, CannedHandler


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def handler() -> CannedHandler:
    return CannedHandler()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "supervisor.sock"


@pytest.fixture
async def server(handler: CannedHandler, socket_path: Path) -> AsyncIterator[Server]:
    server = Server(handler, epoch="e1", max_frame_bytes=MAX_FRAME_BYTES)
    await server.start(socket_path, None)
    yield server
    await server.aclose()
