"""A gateway, an upstream that the test writes itself, and a worker that is an ordinary HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from supervisord_agents import config
from supervisord_agents.core.model import Usage
from supervisord_agents.gateway.server import Attachment, Gateway

KEY = "sk-test-0123456789abcdef"
KEY_ENV = "GATEWAY_TEST_KEY"
TIMEOUT_S = 20.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Worker:
    """One attachment as its worker sees it, and what the gateway reported about it."""

    gateway: Gateway
    attachment: Attachment
    port: int
    session: aiohttp.ClientSession
    usages: list[tuple[str, Usage]] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def a_listener() -> socket.socket:
    """A listening socket, as the sandbox hands it over."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """An upstream on loopback; yields its address without a path, which is one of https if `tls` is given."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def a_worker(settings: config.Gateway, **seams: Any) -> AsyncIterator[Worker]:
    """A started gateway with one attachment, whose task is `g1.t1`."""
    usages: list[tuple[str, Usage]] = []
    refusals: list[tuple[str, str]] = []
    reported = asyncio.Event()

    def on_usage(task: str, usage: Usage) -> None:
        usages.append((task, usage))
        reported.set()

    def on_refusal(task: str, line: str) -> None:
        refusals.append((task, line))
        reported.set()

    gateway = Gateway(settings, on_usage, on_refusal, **seams)
    await gateway.start()
    listener = a_listener()
    port = listener.getsockname()[1]
    attachment = await gateway.attach(listener, "w1")
    attachment.task = "g1.t1"
    try:
        async with asyncio.timeout(TIMEOUT_S), aiohttp.ClientSession() as session:
            yield Worker(gateway, attachment, port, session, usages, refusals, reported)
    finally:
        await gateway.aclose()


def provider(base_url: str, dialect: str = "openai", **values: Any) -> config.Provider:
    return config.Provider(base_url=base_url, dialect=dialect, **{"api_key_env": KEY_ENV, **values})


def settings(base_url: str, dialect: str = "openai", **values: Any) -> config.Gateway:
    """A configuration with one provider, named as its dialect."""
    return config.Gateway(providers={dialect: provider(base_url, dialect)}, **values)
