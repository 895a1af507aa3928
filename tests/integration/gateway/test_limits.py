"""What the gateway refuses, and what it says when a provider fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import structlog
from aiohttp import web

from supervisord_agents import config
from supervisord_agents.gateway import server, telling
from supervisord_agents.gateway.server import Gateway
from supervisord_agents.hosts import AllowedHosts
from tests.support.gateway import KEY, a_worker, serving, settings

PATH = "/openai/chat/completions"
NOWHERE = "http://127.0.0.1:9"


async def ok(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="ok")


async def forever(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def error_of(answer: aiohttp.ClientResponse) -> tuple[int, str, str]:
    error = (await answer.json())["error"]
    return answer.status, error["code"], error["message"]


async def test_an_unknown_provider_is_refused_by_name_and_told() -> None:
    async with a_worker(settings(NOWHERE)) as worker:
        async with worker.session.post(f"{worker.url}/nobody/v1/x?secret=1", json={}) as answer:
            status, code, message = await error_of(answer)
        assert (status, code) == (403, "provider_not_configured")
        assert "'nobody'" in message
        assert "gateway.providers" in message
        assert worker.refusals == [("g1.t1", f"the gateway refused POST /nobody/v1/x: {message}")]


@pytest.mark.parametrize("path", ["/", "/%2e%2e/x", "//openai/x", "/openai%2Fx"])
async def test_paths_that_name_no_provider_are_refused(path: str) -> None:
    async with (
        a_worker(settings(NOWHERE)) as worker,
        worker.session.get(aiohttp.client.URL(worker.url + path, encoded=True)) as answer,
    ):
        assert answer.status == 403


async def test_a_path_out_of_the_base_is_refused() -> None:
    async with (
        a_worker(settings(NOWHERE + "/v1")) as worker,
        worker.session.get(aiohttp.client.URL(f"{worker.url}/openai/%2e%2e/admin", encoded=True)) as answer,
    ):
        assert (await error_of(answer))[:2] == (400, "path_refused")


async def test_trace_is_refused_because_it_would_answer_with_the_key() -> None:
    async with a_worker(settings(NOWHERE)) as worker, worker.session.request("TRACE", f"{worker.url}/openai/x") as answer:
        assert (await error_of(answer))[:2] == (405, "method_refused")


async def test_a_plain_proxy_request_is_refused_and_told_about_connect() -> None:
    async with a_worker(settings(NOWHERE)) as worker, worker.session.get("http://example.org/x", proxy=worker.url) as answer:
        status, code, message = await error_of(answer)
    assert (status, code) == (403, "plain_proxy_refused")
    assert "host example.org:80" in message
    assert "https://" in message
    assert 'add "example.org" to gateway.allowed_hosts' in message
    assert worker.refusals == [("g1.t1", f"the gateway refused GET http://example.org/x: {message}")]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_program_that_sends_even_its_model_calls_to_the_proxy_is_served(host: str) -> None:
    async def upstream(request: web.Request) -> web.Response:
        return web.Response(text=request.path_qs)

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        own = f"{host}:{worker.port}"
        reader, writer = await worker.connect()
        writer.write(f"GET http://{own}/openai/x?q=1 HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert b" 200 " in answer.splitlines()[0]
    assert answer.endswith(b"/x?q=1")
    assert worker.refusals == []


async def test_a_plain_proxy_request_to_another_server_of_the_workers_own_says_how_it_is_reached() -> None:
    async with a_worker(settings(NOWHERE)) as worker, worker.session.get("http://127.0.0.1:1/", proxy=worker.url) as answer:
        status, _, message = await error_of(answer)
    assert status == 403
    assert "NO_PROXY" in message


async def test_credentials_in_a_refused_address_are_not_told() -> None:
    async with a_worker(settings(NOWHERE)) as worker:
        reader, writer = await worker.connect()
        writer.write(b"GET http://user:hidden@example.org/x HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")
        assert b"hidden" not in await reader.read()
        writer.close()
    assert "GET http://example.org/x" in worker.refusals[0][1]
    assert "hidden" not in worker.refusals[0][1]


async def test_a_flood_of_refusals_is_counted_after_the_first_ones() -> None:
    async with a_worker(settings(NOWHERE)) as worker:
        for _ in range(telling.FIRST + 30):
            async with worker.session.get(f"{worker.url}/nobody/x") as answer:
                assert answer.status == 403
        assert len(worker.refusals) == telling.FIRST
        worker.attachment.task = ""
        assert len(worker.refusals) == telling.FIRST + 1
    task, line = worker.refusals[-1]
    assert task == "g1.t1"
    assert line.startswith("… and 30 more; the last: the gateway refused GET /nobody/x")


async def test_malformed_requests_are_no_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.testing.capture_logs() as lines:
        async with a_worker(settings(NOWHERE)) as worker:
            reader, writer = await worker.connect()
            writer.write(b"GET /openai/x HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n")
            assert b" 400 " in (await reader.read()).splitlines()[0]
            writer.close()
    assert caplog.text == ""
    assert [(line["event"], line["log_level"], line["owner"]) for line in lines] == [("gateway_http", "debug", "w1")]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_over_the_limit_is_refused(chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    async with serving(ok) as url, a_worker(settings(url, max_request_bytes=1_000)) as worker:
        body = pieces() if chunked else b"x" * 1_001
        async with worker.session.post(worker.url + PATH, data=body) as answer:
            status, code, message = await error_of(answer)
        assert (status, code) == (413, "request_too_large")
        assert "gateway.max_request_bytes" in message
        async with worker.session.post(worker.url + PATH, data=b"x" * 1_000) as answer:
            assert await answer.text() == "ok"


async def test_a_provider_that_refuses_connections_is_a_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with a_worker(settings(url)) as worker, worker.session.post(worker.url + PATH, json={}) as answer:
        status, code, message = await error_of(answer)
        assert (status, code) == (502, "unreachable")
        assert url.removeprefix("http://") in message
        assert "gateway.providers.openai.base_url" in message
        assert "x-should-retry" not in answer.headers
        assert len(worker.refusals) == 1


@pytest.mark.parametrize("url", ["http://nobody.invalid", "http://a..example.org", f"http://{'a' * 70}.example.org"])
async def test_a_provider_whose_name_does_not_resolve_is_a_502(url: str) -> None:
    async with a_worker(settings(url)) as worker, worker.session.get(f"{worker.url}/openai/x") as answer:
        assert (await error_of(answer))[:2] == (502, "unreachable")


async def test_a_provider_that_accepts_nothing_is_a_504() -> None:
    with socket.socket() as full:
        # A listener whose queue is full does not answer further connections (listen(2)).
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            async with (
                a_worker(settings(url, connect_timeout_s=0.2)) as worker,
                worker.session.post(worker.url + PATH, json={}) as answer,
            ):
                status, code, message = await error_of(answer)
    assert (status, code) == (504, "connect_timeout")
    assert "gateway.connect_timeout_s" in message


async def test_a_provider_that_never_answers_is_a_504_and_others_go_on() -> None:
    async def upstream(request: web.Request) -> web.Response:
        return await (ok if request.path == "/fine" else forever)(request)

    async with serving(upstream) as url, a_worker(settings(url, read_timeout_s=0.3)) as worker:
        stalled = asyncio.create_task(worker.session.post(worker.url + PATH, json={}))
        async with worker.session.get(f"{worker.url}/openai/fine") as answer:
            assert await answer.text() == "ok"
        async with await stalled as answer:
            status, code, message = await error_of(answer)
    assert (status, code) == (504, "read_timeout")
    assert "gateway.read_timeout_s" in message


@pytest.mark.parametrize("length", [None, 100])
async def test_an_answer_that_falls_silent_is_broken_off_and_told(length: int | None) -> None:
    async def upstream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        await response.write(b"half")
        return await forever(request)

    async with (
        serving(upstream) as url,
        a_worker(settings(url, read_timeout_s=0.3)) as worker,
        worker.session.get(f"{worker.url}/openai/x") as answer,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert "sent nothing for 0.3 s" in worker.refusals[0][1]


async def test_an_answer_that_the_provider_breaks_off_cannot_pass_for_a_complete_one() -> None:
    async def upstream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with (
        serving(upstream) as url,
        a_worker(settings(url)) as worker,
        worker.session.get(f"{worker.url}/openai/x") as answer,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert "broke off in the middle" in worker.refusals[0][1]


async def test_an_upstream_that_is_no_http_server_is_a_502() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        await writer.drain()
        writer.close()

    mail = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with (
        mail,
        a_worker(settings(f"http://127.0.0.1:{mail.sockets[0].getsockname()[1]}")) as worker,
        worker.session.get(f"{worker.url}/openai/x") as answer,
    ):
        assert (await error_of(answer))[:2] == (502, "bad_answer")


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /openai/x HTTP/1.1\r\n\r\n", b"A" * 100_000])
async def test_garbage_costs_only_its_own_connection(garbage: bytes) -> None:
    async with serving(ok) as url, a_worker(settings(url)) as worker:
        reader, writer = await worker.connect()
        writer.write(garbage)
        # Answered and closed, or closed.
        await reader.read()
        writer.close()
        async with worker.session.get(f"{worker.url}/openai/x") as answer:
            assert await answer.text() == "ok"


async def test_a_request_that_stalls_in_its_headers_holds_up_nobody_else() -> None:
    async with serving(ok) as url, a_worker(settings(url)) as worker:
        _, writer = await worker.connect()
        writer.write(b"POST /openai/x HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        async with worker.session.get(f"{worker.url}/openai/x") as answer:
            assert await answer.text() == "ok"
        writer.close()


async def test_a_worker_holds_a_bounded_number_of_connections() -> None:
    async with a_worker(settings(NOWHERE)) as worker:
        held = [await worker.connect() for _ in range(server.MAX_CONNECTIONS)]
        reader, writer = await worker.connect()
        # Reset at once, which a reader may also see as the end.
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert "64 are open" in worker.refusals[0][1]
        held[0][1].close()
        await held[0][1].wait_closed()
        for _, other in held[1:]:
            other.close()


async def test_no_key_and_no_body_is_ever_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)

    async def upstream(request: web.Request) -> web.Response:
        raise RuntimeError("broken")

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        for target in (PATH, "/nobody/x", "/openai/%2e%2e/x"):
            async with worker.session.post(worker.url + target, data=b"the body") as answer:
                assert KEY not in await answer.text()
        assert KEY not in repr(vars(worker.gateway)) + repr([vars(route) for route in worker.gateway._routes.values()])
    out, err = capfd.readouterr()
    told = "\n".join([caplog.text, out, err, *(line for _, line in worker.refusals)])
    assert KEY not in told
    assert "the body" not in told


async def test_a_failure_of_the_gateway_itself_is_a_500_and_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Gateway):
        async def answer(self, *arguments: object) -> web.StreamResponse:
            raise ZeroDivisionError

    async with a_worker(settings(NOWHERE)) as worker:
        monkeypatch.setattr(worker.gateway, "__class__", Broken)
        for _ in range(2):
            async with worker.session.get(f"{worker.url}/openai/x") as answer:
                assert (await error_of(answer))[:2] == (500, "internal")


async def test_a_gateway_that_was_closed_takes_no_attachments() -> None:
    gateway = Gateway(config.Gateway(), lambda task, usage: None, lambda task, line: None)
    with socket.socket() as listener, pytest.raises(server.Unavailable):
        await gateway.attach([listener], "w1", AllowedHosts(()))
