"""Requests to providers and the answers back, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from supervisord_agents import config
from supervisord_agents.core.model import Usage
from supervisord_agents.errors import ConfigError
from supervisord_agents.gateway.server import Gateway
from supervisord_agents.hosts import AllowedHosts
from tests.support.gateway import KEY, KEY_ENV, a_worker, provider, serving, settings
from tests.support.scripted_model import INPUT_TOKENS, OUTPUT_TOKENS, ScriptedModel

PATHS = {
    "openai": "/openai/chat/completions",
    "anthropic": "/anthropic/v1/messages",
    "gemini": "/gemini/v1beta/models/m:generateContent",
}
KEY_HEADERS = {"openai": ("Authorization", f"Bearer {KEY}"), "anthropic": ("x-api-key", KEY), "gemini": ("x-goog-api-key", KEY)}


def a_body(dialect: str, text: str, *, stream: bool = False) -> dict[str, Any]:
    if dialect == "gemini":
        return {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    return {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", PATHS)
async def test_a_model_answers_through_the_gateway_and_its_usage_is_reported(dialect: str, stream: bool) -> None:
    path = PATHS[dialect]
    if stream and dialect == "gemini":
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    model = ScriptedModel()
    async with model.serve() as url:
        priced = provider(url, dialect, input_usd_per_mtok=10.0, output_usd_per_mtok=1_000.0)
        async with (
            a_worker(config.Gateway(providers={dialect: priced})) as worker,
            worker.session.post(worker.url + path, json=a_body(dialect, "SAY:good day", stream=stream)) as answer,
        ):
            text = await answer.text()
            assert answer.status == 200
            assert "good" in text
            await worker.reported.wait()
    assert worker.usages == [("g1.t1", Usage(INPUT_TOKENS, OUTPUT_TOKENS, pytest.approx(0.008)))]
    assert worker.refusals == []


@pytest.mark.parametrize("dialect", PATHS)
async def test_the_key_is_added_and_the_workers_own_credentials_are_not_sent(dialect: str) -> None:
    seen: list[web.Request] = []

    async def upstream(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({})

    own = {
        "Authorization": "Bearer mine",
        "x-api-key": "mine",
        "X-Goog-Api-Key": "mine",
        "Cookie": "mine=1",
        "OpenAI-Organization": "mine",
        "Proxy-Authorization": "mine",
        "X-Custom": "kept",
        "Connection": "X-Hop",
        "X-Hop": "mine",
    }
    async with serving(upstream) as url, a_worker(settings(url, dialect)) as worker:
        await worker.session.post(f"{worker.url}{PATHS[dialect]}?key=mine&a=1", json={"b": 1}, headers=own)
    headers = seen[0].headers
    name, value = KEY_HEADERS[dialect]
    assert headers[name] == value
    assert "mine" not in f"{list(headers.items())} {seen[0].path_qs}"
    assert seen[0].query == {"a": "1"}
    assert headers["X-Custom"] == "kept"
    assert headers["Host"] == url.removeprefix("http://")
    assert ("anthropic-version" in headers) == (dialect == "anthropic")


async def test_method_path_query_and_body_arrive_as_they_were_sent() -> None:
    async def upstream(request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        return web.json_response({"line": f"{request.method} {request.raw_path}", "body": body}, status=201, reason="Made")

    async with serving(upstream) as url, a_worker(settings(url + "/v1")) as worker:
        target = aiohttp.client.URL(f"{worker.url}/openai/files/a%2Fb?q=%20x&r", encoded=True)
        async with worker.session.put(target, data="héllo") as answer:
            assert (answer.status, answer.reason) == (201, "Made")
            assert await answer.json() == {"line": "PUT /v1/files/a%2Fb?q=%20x&r", "body": "héllo"}


async def test_a_stream_arrives_piece_by_piece_as_it_is_sent() -> None:
    received = asyncio.Event()

    async def upstream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(5):
            await response.write(f"data: {number}\n\n".encode())
            # The next piece is sent only once the worker has this one: a gateway that gathers would never end.
            await received.wait()
            received.clear()
        return response

    async with (
        serving(upstream) as url,
        a_worker(settings(url)) as worker,
        worker.session.post(worker.url + PATHS["openai"], json={}) as answer,
    ):
        pieces = []
        async for piece in answer.content.iter_any():
            pieces.append(piece)
            received.set()
    assert pieces == [f"data: {number}\n\n".encode() for number in range(5)]


async def test_a_body_goes_up_piece_by_piece_as_it_is_sent() -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def upstream(request: web.Request) -> web.Response:
        async for piece in request.content.iter_any():
            arrived.put_nowait(piece)
        return web.Response(text="end")

    async def body() -> Any:
        for number in range(3):
            yield str(number).encode()
            assert await arrived.get() == str(number).encode()

    async with (
        serving(upstream) as url,
        a_worker(settings(url)) as worker,
        worker.session.post(worker.url + PATHS["openai"], data=body()) as answer,
    ):
        assert await answer.text() == "end"


async def test_a_key_that_the_provider_echoes_is_struck_out() -> None:
    async def upstream(request: web.Request) -> web.StreamResponse:
        sent = request.headers["Authorization"]
        response = web.StreamResponse(status=401, reason=f"No {KEY}", headers={"X-Echo": sent, "Set-Cookie": "a=b"})
        response.content_length = len(sent)
        await response.prepare(request)
        for character in sent:
            await response.write(character.encode())
        return response

    async with (
        serving(upstream) as url,
        a_worker(settings(url)) as worker,
        worker.session.post(worker.url + PATHS["openai"], json={}) as answer,
    ):
        text = await answer.text()
        assert answer.status == 401
        assert text == "Bearer " + "*" * len(KEY)
        assert answer.reason == "No " + "*" * len(KEY)
        assert KEY not in str(answer.headers)
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_reported_before_the_worker_can_see_the_end_of_the_answer(stream: bool) -> None:
    order: list[str] = []
    model = ScriptedModel()
    async with model.serve() as url, a_worker(settings(url)) as worker:
        worker.gateway.on_usage = lambda task, usage: order.append("reported")
        real_eof = web.StreamResponse.write_eof

        async def write_eof(response: web.StreamResponse, data: bytes = b"") -> None:
            assert response._req is not None
            assert response._req.transport is not None
            if response._req.transport.get_extra_info("sockname")[1] == worker.port:
                order.append("ended")
            await real_eof(response, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(web.StreamResponse, "write_eof", write_eof)
            body = a_body("openai", "SAY:x", stream=stream)
            async with worker.session.post(worker.url + PATHS["openai"], json=body) as answer:
                await answer.read()
    assert order[:2] == ["reported", "ended"]


async def test_usage_is_read_from_an_answer_that_is_compressed_all_the_same() -> None:
    plain = json.dumps({"text": "x" * 1000, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode()

    async def upstream(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=gzip.compress(plain), headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        async with worker.session.post(worker.url + PATHS["openai"], json={}) as answer:
            assert "Content-Encoding" not in answer.headers
            assert await answer.read() == plain
        await worker.reported.wait()
    assert worker.usages == [("g1.t1", Usage(3, 4))]


async def test_a_redirect_is_handed_over_and_not_followed_with_the_key() -> None:
    visits = []

    async def upstream(request: web.Request) -> web.Response:
        visits.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with (
        serving(upstream) as url,
        a_worker(settings(url)) as worker,
        worker.session.post(worker.url + PATHS["openai"], json={}, allow_redirects=False) as answer,
    ):
        assert answer.status == 307
    assert visits == ["/chat/completions"]


async def test_head_and_empty_answers_keep_their_shape() -> None:
    async def upstream(request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": "123"})
        return web.Response(status=204)

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        async with worker.session.head(f"{worker.url}/openai/models") as answer:
            assert answer.headers["Content-Length"] == "123"
        async with worker.session.delete(f"{worker.url}/openai/files/1") as answer:
            assert (answer.status, await answer.read()) == (204, b"")


async def test_expect_continue_is_answered_and_the_body_arrives() -> None:
    async def upstream(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.headers.get('Expect')} {await request.text()}")

    async with (
        serving(upstream) as url,
        a_worker(settings(url)) as worker,
        worker.session.post(worker.url + PATHS["openai"], data=b"body", expect100=True) as answer,
    ):
        assert await answer.text() == "None body"


async def test_usage_goes_to_the_task_that_was_set_when_the_request_began() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def upstream(request: web.Request) -> web.Response:
        started.set()
        await go_on.wait()
        return web.json_response({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        request = asyncio.create_task(worker.session.post(worker.url + PATHS["openai"], json={}))
        await started.wait()
        worker.attachment.task = "g1.t2"
        go_on.set()
        await request
        await worker.reported.wait()
    assert worker.usages == [("g1.t1", Usage(1, 1))]


async def test_a_worker_that_leaves_ends_the_request_upstream_and_what_was_used_is_reported() -> None:
    ended = asyncio.Event()

    async def upstream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b'data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n')
            await asyncio.Event().wait()
        finally:
            ended.set()
        return response

    async with serving(upstream) as url, a_worker(settings(url, "anthropic")) as worker:
        answer = await worker.session.post(worker.url + PATHS["anthropic"], json={})
        await answer.content.readany()
        answer.close()
        await ended.wait()
        await worker.reported.wait()
    assert worker.usages == [("g1.t1", Usage(9, 1))]
    assert worker.refusals == []


async def test_a_worker_that_does_not_read_holds_up_nobody_else() -> None:
    flowing = asyncio.Event()

    async def upstream(request: web.Request) -> web.StreamResponse:
        if request.path == "/small":
            return web.Response(text="small")
        response = web.StreamResponse()
        await response.prepare(request)
        flowing.set()
        while True:
            await response.write(b"x" * 65_536)

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        reader, writer = await worker.connect()
        writer.write(b"GET /openai/endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await flowing.wait()
        for _ in range(20):
            async with worker.session.get(f"{worker.url}/openai/small") as answer:
                assert await answer.text() == "small"
        writer.close()


async def test_closing_an_attachment_closes_its_listener_and_gives_up_its_requests() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def upstream(request: web.Request) -> web.Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with serving(upstream) as url, a_worker(settings(url)) as worker:
        request = asyncio.create_task(worker.session.post(worker.url + PATHS["openai"], json={}))
        await started.wait()
        await worker.attachment.close()
        with pytest.raises(aiohttp.ClientError):
            await request
        await ended.wait()
        with pytest.raises(ConnectionRefusedError):
            await worker.connect()
        await worker.attachment.close()


async def test_a_provider_without_a_key_is_called_without_one() -> None:
    async def upstream(request: web.Request) -> web.Response:
        return web.json_response({"authorization": request.headers.get("Authorization")})

    async with serving(upstream) as url:
        keyless = config.Gateway(providers={"local": config.Provider(base_url=url)})
        async with (
            a_worker(keyless) as worker,
            worker.session.get(f"{worker.url}/local/v1/models", headers={"Authorization": "Bearer x"}) as answer,
        ):
            assert await answer.json() == {"authorization": None}


async def test_hundreds_of_attachments_serve_at_the_same_time() -> None:
    async def upstream(request: web.Request) -> web.Response:
        return web.json_response({"usage": {"prompt_tokens": 1, "completion_tokens": 0}})

    async with serving(upstream) as url:
        tasks: list[str] = []
        gateway = Gateway(settings(url), lambda task, usage: tasks.append(task), lambda task, line: None)
        await gateway.start()
        ports = []
        for number in range(200):
            listener = socket.create_server(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
            attachment = await gateway.attach([listener], f"w{number}", AllowedHosts(()))
            attachment.task = f"t{number}"
        async with aiohttp.ClientSession() as session:

            async def ask(port: int) -> int:
                async with session.post(f"http://127.0.0.1:{port}{PATHS['openai']}", json={}) as answer:
                    await answer.read()
                    return answer.status

            assert await asyncio.gather(*map(ask, ports)) == [200] * 200
        await gateway.aclose()
    assert sorted(tasks) == sorted(f"t{number}" for number in range(200))


async def test_a_key_file_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1")
    path.chmod(0o644)
    readable = config.Gateway(providers={"p": config.Provider(base_url="http://127.0.0.1", api_key_file=str(path))})
    with pytest.raises(ConfigError, match="chmod 600"):
        await Gateway(readable, lambda task, usage: None, lambda task, line: None).start()


async def test_a_missing_key_fails_only_the_requests_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV)

    async def upstream(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async with serving(upstream) as url:
        both = {"keyed": provider(url), "local": config.Provider(base_url=url)}
        async with a_worker(config.Gateway(providers=both)) as worker:
            async with worker.session.get(f"{worker.url}/keyed/models") as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (502, "key_missing")
                assert answer.headers["x-should-retry"] == "false"
                assert KEY_ENV in error["message"]
            async with worker.session.get(f"{worker.url}/local/models") as answer:
                assert await answer.text() == "ok"
    assert [task for task, _ in worker.refusals] == ["g1.t1"]
    assert KEY_ENV in worker.refusals[0][1]
