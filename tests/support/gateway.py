"""A gateway, an upstream that the test writes itself, and a worker that is an ordinary HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from supervisord_agents import config
from supervisord_agents.core.model import Usage
from supervisord_agents.gateway.egress import Streams
from supervisord_agents.gateway.server import Attachment, Gateway
from supervisord_agents.hosts import AllowedHosts

KEY = "sk-test-0123456789abcdef"
KEY_ENV = "GATEWAY_TEST_KEY"
TIMEOUT_S = 20.0
GLOBAL = "93.184.215.14"

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
async def a_worker(settings: config.Gateway, *more: socket.socket, **seams: Any) -> AsyncIterator[Worker]:
    """A started gateway with one attachment, whose task is `g1.t1`; `more` are listeners beside the one for HTTP."""
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
    attachment = await gateway.attach([listener, *more], "w1", AllowedHosts(settings.allowed_hosts))
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


def allowing(*hosts: str, **values: float) -> config.Gateway:
    return config.Gateway(allowed_hosts=hosts, **values)  # type: ignore[arg-type]


class Internet:
    """One public address, which leads to a port on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses = [GLOBAL]
        self.resolved: list[str] = []
        self.dialled: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        return self.addresses

    async def dial(self, address: str, port: int) -> Streams:
        self.dialled.append((address, port))
        return await asyncio.open_connection("127.0.0.1", self.port)


def a_certificate(directory: Path, host: str) -> ssl.SSLContext:
    """A server's TLS context whose certificate, signed by itself, is `certificate.pem` in the directory."""
    key, certificate = str(directory / "key.pem"), str(directory / "certificate.pem")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={host}"]
    subprocess.run(
        [*request, "-addext", f"subjectAltName=DNS:{host}", "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
