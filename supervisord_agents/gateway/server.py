"""The gateway: the only way out of a worker's sandbox.

A worker's network namespace has nothing but loopback. The sandbox hands over a socket that listens inside that namespace, so
whoever comes in by it is that worker: nothing needs to be proved by tokens.

    /<provider>/<rest>      to the provider's base_url + <rest>, with its key (upstream.py)
    CONNECT host:port       a byte tunnel to an allowed host (egress.py)

Names are answered there too, and connections to the addresses in these answers are tunnels to allowed hosts as well (direct.py).
Programs that send everything to their proxy, NO_PROXY or not, find the model endpoints by either way too.

docs/gateway.md says what to set in an agent.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import cast
from urllib.parse import SplitResult, urlsplit

import structlog
from aiohttp import web

from supervisord_agents import config
from supervisord_agents.core.model import Usage
from supervisord_agents.errors import ConfigError, Unavailable
from supervisord_agents.gateway import egress
from supervisord_agents.gateway.direct import Direct
from supervisord_agents.gateway.guard import Guard, NoGuard
from supervisord_agents.gateway.nameserver import Datagrams, serve_stream
from supervisord_agents.gateway.refusal import BrokenOff, Refusal, how_to_allow
from supervisord_agents.gateway.resolver import Resolver
from supervisord_agents.gateway.routes import Route
from supervisord_agents.gateway.telling import ServerLog, Telling
from supervisord_agents.gateway.tunnel import serve_tunnel
from supervisord_agents.gateway.upstream import METHODS, Reply, Upstream
from supervisord_agents.hosts import DEFAULT_PORT, AllowedHosts

MAX_CONNECTIONS = 64
"""Of one worker at a time: agents use a handful; more would spend the daemon's descriptors."""
KEEPALIVE_S = 75.0
"""An idle connection, or one that never completes its headers, is closed after this."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
EVERY_ADDRESS = "0.0.0.0"
DNS_PORT = 53
_CREDENTIALS = re.compile(r"(?<=//)[^/@]*@")

log = structlog.get_logger()


class Gateway:
    """All attachments of the daemon and what they share: routes, keys, policy, the pool of upstream connections."""

    def __init__(
        self,
        settings: config.Gateway,
        on_usage: Callable[[str, Usage], None],
        on_refusal: Callable[[str, str], None],
        *,
        guard: Guard | None = None,
        resolve: egress.Resolve | None = None,
        dial: egress.Dial = egress.dial,
    ) -> None:
        """`on_usage(task, usage)` after an answer that told its cost, `on_refusal(task, line)` for what was not let through, a
        bounded number of times (telling.py).

        Both must return at once and not raise. `guard` decides whether a provider is called. `resolve` and `dial` replace the
        system's for all but providers.
        Raises ConfigError.
        """
        _check_limits(settings)
        self.settings = settings
        self.on_usage = on_usage
        self.on_refusal = on_refusal
        self.guard = guard or NoGuard()
        self._routes = {name: Route(name, provider) for name, provider in settings.providers.items()}
        self._resolve = resolve
        self._dial = dial
        self._resolver: Resolver | None = None
        self._upstream: Upstream | None = None
        self._attachments: set[Attachment] = set()

    async def start(self) -> None:
        """Read the keys. Raises ConfigError for a key that others can read; one that is missing fails only its own requests."""
        for route in self._routes.values():
            route.load_key(os.environ)
            if route.missing_key:
                log.warning("gateway_key_missing", provider=route.name, reason=route.missing_key)
        self._resolver = Resolver()
        self._upstream = Upstream(self.settings, self._resolver, self.guard)

    async def aclose(self) -> None:
        """Close every attachment and every connection."""
        await asyncio.gather(*(attachment.close() for attachment in list(self._attachments)))
        if self._upstream is not None:
            await self._upstream.aclose()
        if self._resolver is not None:
            await self._resolver.close()
        self._upstream = self._resolver = None

    async def attach(self, listeners: Sequence[socket.socket], owner: str, allowed: AllowedHosts) -> Attachment:
        """Serve the sockets inside the sandbox of the worker `owner`, which are the attachment's own from now on.

        What each is for is seen by where it is bound: UDP and port 53 for names, every address for the hosts that these names
        stand for, anything else for HTTP. `allowed` is all that this worker may reach.
        """
        if self._upstream is None:
            raise Unavailable("the gateway is not running.")
        attachment = Attachment(self, owner, allowed)
        try:
            await attachment.open(listeners)
        except BaseException:
            await attachment.close()
            raise
        self._attachments.add(attachment)
        return attachment

    def detached(self, attachment: Attachment) -> None:
        self._attachments.discard(attachment)

    async def answer(
        self, request: web.BaseRequest, attachment: Attachment, report: Callable[[Usage], None]
    ) -> web.StreamResponse:
        """Carry out one request; raises Refusal, or BrokenOff if an answer had begun."""
        if request.method == "CONNECT":
            return await self._tunnel(request, attachment)
        target = attachment.own_target(request.raw_path)
        if not target.startswith("/"):
            raise _plain_proxy_refused(target)
        path, _, query = target.partition("?")
        name, _, rest = path[1:].partition("/")
        route = self._route(name)
        if request.method not in METHODS:
            raise Refusal(405, "method_refused", f"{request.method} is not forwarded.")
        try:
            url = route.url(rest, query)
        except ValueError as error:
            raise Refusal(400, "path_refused", f"{error}.") from None
        _refuse_without_key(route)
        assert self._upstream is not None
        return await self._upstream.forward(request, route, url, report)

    async def inquire(self, provider: str, path: str, body: bytes, timeout_s: float) -> Reply:
        """Post JSON to a provider for the daemon itself, whose usage is nobody's but in the reply; raises Refusal."""
        if self._upstream is None:
            raise Refusal(503, "not_running", "the gateway is not running.", permanent=False)
        route = self._route(provider)
        _refuse_without_key(route)
        return await self._upstream.inquire(route, route.url(path, ""), body, timeout_s)

    def dialect(self, target: str) -> str:
        """The dialect to answer errors in."""
        route = self._routes.get(target[1:].partition("?")[0].partition("/")[0])
        return route.dialect.name if route else "openai"

    def _route(self, name: str) -> Route:
        route = self._routes.get(name)
        if route is not None:
            return route
        known = ", ".join(self._routes) or "none"
        message = (
            f"provider {name[:64]!r} is not configured (configured: {known}). Add [gateway.providers.<name>] to config.toml."
        )
        raise Refusal(403, "provider_not_configured", message)

    async def _tunnel(self, request: web.BaseRequest, attachment: Attachment) -> web.StreamResponse:
        try:
            host, port = egress.parse_authority(request.raw_path)
        except ValueError as error:
            raise Refusal(400, "bad_target", f"{error}.") from None
        if attachment.is_own(host, port):
            far = await attachment.connect()
        else:
            far = await self.connect(host, port, attachment.allowed)
        return await serve_tunnel(request, far, self.settings.read_timeout_s)

    async def connect(self, host: str, port: int, allowed: AllowedHosts) -> egress.Streams:
        """A connection to a host that is allowed; raises Refusal."""
        if (host, port) not in allowed:
            raise Refusal(403, "host_not_allowed", f"host {host}:{port} is not allowed. {how_to_allow(host, port)}")
        assert self._resolver is not None
        resolve = self._resolve or self._resolver.addresses
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                return await egress.connect(host, port, resolve, self._dial)
        except egress.Denied as error:
            raise Refusal(403, "address_not_allowed", f"{error}: not connected to, although the host is allowed.") from None
        except TimeoutError:
            message = f"{host}:{port} could not be connected to within {self.settings.connect_timeout_s:g} s."
            raise Refusal(504, "connect_timeout", message, permanent=False) from None
        except OSError as error:
            message = f"{host}:{port} could not be connected to: {error.strerror or type(error).__name__}."
            raise Refusal(502, "unreachable", message, permanent=False) from None


class Attachment:
    """One worker's listeners. `task` is whom usage and refusals of requests that begin now are told for."""

    def __init__(self, gateway: Gateway, owner: str, allowed: AllowedHosts) -> None:
        self.owner = owner
        self.allowed = allowed
        self._task = ""
        self._gateway = gateway
        self._port = 0
        self._telling = Telling(gateway.on_refusal)
        self._server = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            logger=cast(logging.Logger, ServerLog(owner)),
        )
        self._direct = Direct(allowed, lambda host, port: gateway.connect(host, port, allowed), gateway.settings.read_timeout_s)
        self._closed = False
        self._listening: list[asyncio.Server | Datagrams] = []
        self._requests: set[asyncio.Task[object]] = set()
        self._streams: set[asyncio.Task[None]] = set()

    @property
    def task(self) -> str:
        return self._task

    @task.setter
    def task(self, task: str) -> None:
        self._telling.flush()
        if task != self._task:
            self._direct.forget()
        self._task = task

    def is_own(self, host: str, port: int) -> bool:
        """True for the address that the worker has this gateway at."""
        return port == self._port and host.lower() in LOOPBACK

    def own_target(self, target: str) -> str:
        """The target of a request, without the scheme and the authority if they are this gateway's own (RFC 9112, 3.2.2)."""
        parts = _split(target)
        if parts is None or not self.is_own(parts.hostname or "", parts.port or 80):
            return target
        return SplitResult("", "", parts.path or "/", parts.query, "").geturl()

    async def connect(self) -> egress.Streams:
        """A new connection to this gateway, as if the worker had made it."""
        inner, outer = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, inner)
        return await asyncio.open_unix_connection(sock=outer, limit=egress.CHUNK_BYTES)

    async def open(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections; if not all can be, raises OSError with none of the sockets left open."""
        waiting = list(listeners)
        try:
            while waiting:
                self._listening.append(await self._served(waiting[0]))
                del waiting[0]
        finally:
            for listener in waiting:
                listener.close()

    async def _served(self, listener: socket.socket) -> asyncio.Server | Datagrams:
        if listener.type is socket.SOCK_DGRAM:
            return Datagrams(listener, self._reply)
        address, port = listener.getsockname()
        protocol: Callable[[], asyncio.BaseProtocol] = self._protocol
        if address == EVERY_ADDRESS:
            protocol = functools.partial(self._stream, lambda near: self._direct.serve(near, self._teller()))
        elif port == DNS_PORT:
            protocol = functools.partial(self._stream, lambda near: serve_stream(near, self._reply))
        else:
            self._port = port
        return await asyncio.get_running_loop().create_server(protocol, sock=listener)

    async def close(self) -> None:
        """Close the listeners and every connection; requests under way are given up."""
        self._gateway.detached(self)
        if self._closed:
            return
        self._closed = True
        for listening in self._listening:
            listening.close()
        for connection in self._server.connections:
            connection.force_close()
        under_way = [*self._requests, *self._streams]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        self._telling.flush()

    def _protocol(self) -> asyncio.BaseProtocol:
        return self._server() if self._has_room() else _Refused()

    def _stream(self, serve: Callable[[egress.Streams], Awaitable[None]]) -> asyncio.BaseProtocol:
        if not self._has_room():
            return _Refused()
        reader = asyncio.StreamReader(limit=egress.CHUNK_BYTES)
        return asyncio.StreamReaderProtocol(reader, lambda reader, writer: self._begin(serve, (reader, writer)))

    def _has_room(self) -> bool:
        if len(self._server.connections) + len(self._streams) < MAX_CONNECTIONS:
            return True
        self._telling.tell(self._task, f"the gateway refused a connection: {MAX_CONNECTIONS} are open already")
        return False

    def _begin(self, serve: Callable[[egress.Streams], Awaitable[None]], near: egress.Streams) -> None:
        async def served() -> None:
            try:
                await serve(near)
            except Exception:
                log.exception("gateway_stream_failed", owner=self.owner, task=self._task)

        task = asyncio.get_running_loop().create_task(served())
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        task.add_done_callback(lambda _: near[1].close())
        if self._closed:  # it was accepted just before
            task.cancel()

    def _reply(self, query: bytes) -> bytes | None:
        return self._direct.reply(query, self._teller())

    def _teller(self) -> Callable[[str], None]:
        """Tells for the task of now, also when another one is there."""
        return functools.partial(self._telling.tell, self._task)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        current = asyncio.current_task()
        assert current is not None
        self._requests.add(current)
        task = self._task
        dialect = self._gateway.dialect(self.own_target(request.raw_path))
        try:
            return await self._gateway.answer(request, self, lambda usage: self._gateway.on_usage(task, usage))
        except Refusal as refusal:
            self._telling.tell(task, f"the gateway refused {_named(request)}: {refusal.message}")
            return refusal.response(dialect)
        except BrokenOff as broken:
            self._telling.tell(task, f"the gateway broke off {_named(request)}: {broken}")
            return _hang_up(request)
        except ConnectionError:
            # The worker went away in the middle of its answer.
            return _hang_up(request)
        except Exception:
            log.exception("gateway_request_failed", owner=self.owner, task=task)
            if request.writer.output_size:
                return _hang_up(request)
            failure = Refusal(500, "internal", "the gateway failed; the daemon's log has the details.", permanent=False)
            return failure.response(dialect)
        finally:
            self._requests.discard(current)


class _Refused(asyncio.Protocol):
    """A connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()  # uvloop's is one in all but name


def _split(target: str) -> SplitResult | None:
    """An absolute http:// target in parts, or None."""
    try:
        parts = urlsplit(target)
        valid = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if valid else None


def _plain_proxy_refused(target: str) -> Refusal:
    parts = _split(target)
    if parts is None or parts.hostname is None:
        message = "this is no general proxy: model endpoints are at /<provider>/..., and only CONNECT to allowed hosts goes out."
        return Refusal(403, "plain_proxy_refused", message)
    host = _printable(parts.hostname)
    why = f"host {host}:{parts.port or 80} is not reached by plain http://, only by CONNECT, which https:// makes."
    return Refusal(403, "plain_proxy_refused", f"{why} {how_to_allow(host, DEFAULT_PORT)}")


def _refuse_without_key(route: Route) -> None:
    if route.missing_key:
        message = (
            f"provider {route.name} has no API key: {route.missing_key}. Set it where the daemon runs and restart the daemon."
        )
        raise Refusal(502, "key_missing", message)


def _named(request: web.BaseRequest) -> str:
    """The request on one line for a log: no query, no credentials, no control characters, bounded."""
    path = _CREDENTIALS.sub("", request.raw_path.partition("?")[0], count=1)
    return f"{request.method} {_printable(path)}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:200])


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection without completing the answer; the response that is returned is never sent."""
    request.protocol.force_close()
    return web.Response()


def _check_limits(settings: config.Gateway) -> None:
    if not 0 < settings.port < 65536:
        raise ConfigError("must be a port, 1 to 65535.", field="gateway.port")
    for field in ("connect_timeout_s", "read_timeout_s", "max_request_bytes"):
        if not getattr(settings, field) > 0:
            raise ConfigError("must be greater than 0.", field=f"gateway.{field}")
