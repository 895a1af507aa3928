"""A worker's request to a provider and the answer back, streamed both ways; the key is added here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from supervisord_agents import config
from supervisord_agents.core.model import Usage
from supervisord_agents.gateway import usage
from supervisord_agents.gateway.dialects import AUTH_HEADERS
from supervisord_agents.gateway.guard import Guard, fault_of, retry_after_s
from supervisord_agents.gateway.keys import Redactor
from supervisord_agents.gateway.refusal import BrokenOff, Refusal
from supervisord_agents.gateway.resolver import Resolver
from supervisord_agents.gateway.routes import Route

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""TRACE is not among them: its answer is the request, key included."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, 7.6.1: about one connection, not about the message."""

_NOT_SENT = HOP_BY_HOP | AUTH_HEADERS | {"host", "content-length", "accept-encoding", "expect"}
_NOT_RETURNED = HOP_BY_HOP | {"content-length", "set-cookie", "alt-svc"}
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What the client library would add: a worker's request goes out with the worker's own headers."""


MAX_REPLY_BYTES = 4 * 1024 * 1024
"""To a question of the daemon's own."""


class Reply(NamedTuple):
    """To a question of the daemon's own; `usage` is what it cost."""

    status: int
    body: bytes
    usage: Usage


class Upstream:
    """The way to all providers: one pool of connections, no cookies, no redirects."""

    def __init__(self, settings: config.Gateway, resolver: Resolver, guard: Guard) -> None:
        self._settings = settings
        self._guard = guard
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s, ceil_threshold=60
            ),
            skip_auto_headers=_AUTOMATIC,
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def forward(
        self, request: web.BaseRequest, route: Route, url: URL, report: Callable[[Usage], None]
    ) -> web.StreamResponse:
        """Carry out `request` at `url` and stream the answer to the worker.

        `report` is called once, at the end, if the answer told what it cost; also when it broke off. Raises Refusal before
        anything was answered, BrokenOff after.
        """
        upload = Upload(request, self._settings.max_request_bytes)
        self._refuse_while_open(route)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The interim answer is not the answer: an error can still be sent.
            request.writer.output_size = 0
        try:
            answer = await self._session.request(
                request.method,
                url,
                headers=outgoing_headers(request.headers, route),
                data=upload.chunks() if request.body_exists else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            refusal = upload.refusal()
            if refusal is None:
                refusal = self._unreachable(route, error)
                self._guard.answered(route.name, refusal.message, 0.0)
            raise refusal from None
        async with answer:
            fault = fault_of(answer.status)
            if fault:
                self._guard.answered(route.name, fault, retry_after_s(answer.headers))
            try:
                response = await self._answer(request, route, answer, report)
            except BrokenOff as broken:
                self._guard.answered(route.name, str(broken), 0.0)
                raise
            if not fault:
                self._guard.answered(route.name, "", 0.0)
            return response

    async def inquire(self, route: Route, url: URL, body: bytes, timeout_s: float) -> Reply:
        """Post JSON for the daemon itself, and read the answer whole.

        Raises Refusal. That an answer takes longer than its asker waits says nothing against the provider.
        """
        self._refuse_while_open(route)
        headers = CIMultiDict({hdrs.CONTENT_TYPE: "application/json", **route.dialect.defaults})
        if route.key is not None:
            headers.add(*route.dialect.authorization(route.key.reveal()))
        patience = asyncio.timeout(timeout_s)
        try:
            async with (
                patience,
                self._session.post(url, headers=headers, data=body, allow_redirects=False) as answer,
            ):
                content = await _whole(answer, route)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if patience.expired():
                message = f"provider {route.name} ({route.host}) did not answer within {timeout_s:.3g} s."
                raise Refusal(504, "deadline", message, permanent=False) from None
            refusal = self._unreachable(route, error)
            self._guard.answered(route.name, refusal.message, 0.0)
            raise refusal from None
        fault = fault_of(answer.status)
        self._guard.answered(route.name, fault, retry_after_s(answer.headers) if fault else 0.0)
        redactor = Redactor(route.key)
        content = redactor.feed(content) + redactor.finish()
        reader = usage.reader(route.dialect.name, answer.headers.get(hdrs.CONTENT_TYPE, ""))
        reader.feed(content)
        reader.finish()
        return Reply(answer.status, content, usage.priced(reader.tokens, route.provider))

    def _refuse_while_open(self, route: Route) -> None:
        wait_s = self._guard.wait_s(route.name)
        if wait_s > 0:
            message = (
                f"the breaker of provider {route.name} ({route.host}) is open: it failed again and again, and is tried again in "
                f"{wait_s:.0f} s. See agentctl breakers."
            )
            raise Refusal(503, "breaker_open", message, permanent=False, retry_after_s=wait_s)

    async def _answer(
        self, request: web.BaseRequest, route: Route, answer: aiohttp.ClientResponse, report: Callable[[Usage], None]
    ) -> web.StreamResponse:
        redactor = Redactor(route.key)
        reader = usage.reader(route.dialect.name, answer.headers.get(hdrs.CONTENT_TYPE, ""))
        response = web.StreamResponse(
            status=answer.status, reason=redactor.text(answer.reason or ""), headers=returned_headers(answer.headers, redactor)
        )
        if answer.content_length is not None and hdrs.CONTENT_ENCODING not in answer.headers:
            response.content_length = answer.content_length
        try:
            await response.prepare(request)
            async for chunk in self._chunks(answer, route):
                reader.feed(chunk)
                if ready := redactor.feed(chunk):
                    await response.write(ready)
        finally:
            # Before the worker sees the end: it may be done, and its result stored, right after.
            reader.finish()
            if reader.tokens != usage.Tokens():
                report(usage.priced(reader.tokens, route.provider))
        await response.write_eof(redactor.finish())
        return response

    async def _chunks(self, answer: aiohttp.ClientResponse, route: Route) -> AsyncIterator[bytes]:
        try:
            while chunk := await answer.content.readany():
                yield chunk
        except TimeoutError:
            raise BrokenOff(
                f"provider {route.name} ({route.host}) sent nothing for {self._settings.read_timeout_s:g} s in the middle of "
                "an answer (gateway.read_timeout_s)"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOff(
                f"provider {route.name} ({route.host}) broke off in the middle of an answer: {type(error).__name__}"
            ) from None

    def _unreachable(self, route: Route, error: Exception) -> Refusal:
        who = f"provider {route.name} ({route.host})"
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            message = (
                f"{who} could not be connected to within {self._settings.connect_timeout_s:g} s (gateway.connect_timeout_s)."
            )
            return Refusal(504, "connect_timeout", message, permanent=False)
        if isinstance(error, TimeoutError):
            message = f"{who} did not answer within {self._settings.read_timeout_s:g} s (gateway.read_timeout_s)."
            return Refusal(504, "read_timeout", message, permanent=False)
        check = f"Check gateway.providers.{route.name}.base_url and the network of the daemon."
        if isinstance(error, aiohttp.ClientConnectorError):
            why = error.os_error.strerror or type(error.os_error).__name__
            return Refusal(502, "unreachable", f"{who} could not be connected to: {why}. {check}", permanent=False)
        message = f"{who} gave no valid answer: {type(error).__name__}. Try again; if it stays so: {check}"
        return Refusal(502, "bad_answer", message, permanent=False)


async def _whole(answer: aiohttp.ClientResponse, route: Route) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            message = f"provider {route.name} ({route.host}) answered with more than {MAX_REPLY_BYTES} bytes."
            raise Refusal(502, "reply_too_large", message)
    return bytes(content)


class Upload:
    """The body of a request, counted as it passes."""

    def __init__(self, request: web.BaseRequest, limit_bytes: int) -> None:
        """Raises Refusal if the request announces a body over the limit."""
        self._content = request.content
        self._limit_bytes = limit_bytes
        self._too_large = (request.content_length or 0) > limit_bytes
        if refusal := self.refusal():
            raise refusal

    async def chunks(self) -> AsyncIterator[bytes]:
        sent_bytes = 0
        async for chunk in self._content.iter_any():
            sent_bytes += len(chunk)
            if sent_bytes > self._limit_bytes:
                self._too_large = True
                raise ValueError("request body over the limit")
            yield chunk

    def refusal(self) -> Refusal | None:
        """Why the request cannot be sent, if it is the body's fault."""
        if not self._too_large:
            return None
        message = (
            f"the request is larger than {self._limit_bytes} bytes (gateway.max_request_bytes). Send less, or raise the limit."
        )
        return Refusal(413, "request_too_large", message)


def outgoing_headers(headers: CIMultiDictProxy[str], route: Route) -> CIMultiDict[str]:
    """The worker's headers without its credentials, with the provider's key."""
    dropped = _NOT_SENT | _named_by_connection(headers)
    sent = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
    for name, value in route.dialect.defaults.items():
        sent.setdefault(name, value)
    # Counts are read from the answer as it passes.
    sent[hdrs.ACCEPT_ENCODING] = "identity"
    if hdrs.TRANSFER_ENCODING not in headers and hdrs.CONTENT_LENGTH in headers:
        sent[hdrs.CONTENT_LENGTH] = headers[hdrs.CONTENT_LENGTH]
    if route.key is not None:
        name, value = route.dialect.authorization(route.key.reveal())
        sent[name] = value
    return sent


def returned_headers(headers: CIMultiDictProxy[str], redactor: Redactor) -> CIMultiDict[str]:
    """The provider's headers, without cookies and without those about a connection or an encoding that ended here."""
    dropped = _NOT_RETURNED | _named_by_connection(headers) | {"content-encoding"}
    return CIMultiDict((name, redactor.text(value)) for name, value in headers.items() if name.lower() not in dropped)


def _named_by_connection(headers: CIMultiDictProxy[str]) -> frozenset[str]:
    listed = ",".join(headers.getall(hdrs.CONNECTION, ()))
    return frozenset(name.strip().lower() for name in listed.split(",") if name.strip())
