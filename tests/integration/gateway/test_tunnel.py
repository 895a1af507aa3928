"""CONNECT through a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from supervisord_agents.core.model import Usage
from supervisord_agents.gateway.egress import Streams
from supervisord_agents.gateway.server import MAX_CONNECTIONS
from supervisord_agents.workers.agents.environment import proxy_environment
from tests.support.gateway import GLOBAL, Internet, Worker, a_certificate, a_worker, allowing, serving, settings
from tests.support.scripted_model import INPUT_TOKENS, OUTPUT_TOKENS, ScriptedModel

HOST = "echo.example.org"

Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def listening(server: Server) -> AsyncIterator[int]:
    async with await asyncio.start_server(server, "127.0.0.1", 0) as listener:
        yield int(listener.sockets[0].getsockname()[1])


async def connect(worker: Worker, target: str, more: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    """Ask for a tunnel; the status of the answer, whose headers are read."""
    reader, writer = await worker.connect()
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode() + more)
    head = await reader.readuntil(b"\r\n\r\n")
    return reader, writer, int(head.split()[1])


async def error_of(reader: asyncio.StreamReader) -> dict[str, str]:
    error: dict[str, str] = json.loads(await reader.readuntil(b"}}"))["error"]
    return error


async def test_bytes_pass_both_ways_to_the_address_that_was_checked() -> None:
    async with listening(echo) as port:
        internet = Internet(port)
        async with a_worker(allowing("*.example.org"), resolve=internet.resolve, dial=internet.dial) as worker:
            reader, writer, status = await connect(worker, f"{HOST}:443", more=b"early ")
            assert status == 200
            writer.write(b"late")
            assert await reader.readexactly(10) == b"early late"
            writer.close()
        assert internet.dialled == [(GLOBAL, 443)]
        assert worker.refusals == []


async def test_more_than_any_buffer_holds_passes_whole() -> None:
    data = bytes(range(256)) * 40_000
    async with listening(echo) as port:
        internet = Internet(port)
        async with a_worker(allowing(HOST), resolve=internet.resolve, dial=internet.dial) as worker:
            reader, writer, _ = await connect(worker, f"{HOST}:443")

            async def send() -> None:
                writer.write(data)
                await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(len(data)) == data
            await sending
            writer.close()


async def test_a_host_that_does_not_read_stops_the_worker_from_sending() -> None:
    data = b"x" * 30_000_000
    go_on = asyncio.Event()
    received = 0

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await go_on.wait()
        while received < len(data):
            received += len(await reader.read(1_000_000))
        writer.close()

    async with listening(host) as port:
        internet = Internet(port)
        async with a_worker(allowing(HOST), resolve=internet.resolve, dial=internet.dial) as worker:
            reader, writer, _ = await connect(worker, f"{HOST}:443")
            (connection,) = worker.attachment._server.connections
            transport = connection.transport
            assert transport is not None
            writer.write(data)
            while transport.is_reading():
                await asyncio.sleep(0)
            assert writer.transport.get_write_buffer_size() > 0
            go_on.set()
            assert await reader.read() == b""
            writer.close()
    assert received == len(data)


async def test_a_host_on_loopback_is_refused_although_it_is_allowed() -> None:
    async def untouched(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    async with listening(untouched) as port, a_worker(allowing(f"localhost:{port}")) as worker:
        reader, writer, status = await connect(worker, f"localhost:{port}")
        error = await error_of(reader)
        writer.close()
    assert (status, error["code"]) == (403, "address_not_allowed")
    assert "not an address of the public Internet" in worker.refusals[0][1]


async def test_a_host_or_port_that_is_not_configured_is_refused_and_told() -> None:
    async with a_worker(allowing(HOST)) as worker:
        for target in ("evil.example.net:443", f"{HOST}:22", "127.0.0.1:443", "[::1]:443"):
            reader, writer, status = await connect(worker, target)
            error = await error_of(reader)
            assert (status, error["code"]) == (403, "host_not_allowed")
            assert "gateway.allowed_hosts" in error["message"]
            writer.close()
    assert f'add "{HOST}:22" to gateway.allowed_hosts' in worker.refusals[1][1]
    assert [task for task, _ in worker.refusals] == ["g1.t1"] * 4
    assert "evil.example.net:443" in worker.refusals[0][1]


async def test_the_connection_is_good_for_another_request_after_a_refusal() -> None:
    async with a_worker(allowing(HOST)) as worker:
        reader, writer, _ = await connect(worker, "evil.example.net:443", more=b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await error_of(reader)
        assert b" 403 " in await reader.readline()
        writer.close()


async def test_a_host_that_refuses_or_never_answers_is_told() -> None:
    async def refuse(address: str, port: int) -> Streams:
        raise ConnectionRefusedError(111, "Connection refused")

    async def hang(address: str, port: int) -> Streams:
        await asyncio.Event().wait()
        raise AssertionError

    for dial, expected in ((refuse, (502, "unreachable")), (hang, (504, "connect_timeout"))):
        internet = Internet(0)
        async with a_worker(allowing(HOST, connect_timeout_s=0.1), resolve=internet.resolve, dial=dial) as worker:
            reader, writer, status = await connect(worker, f"{HOST}:443")
            assert (status, (await error_of(reader))["code"]) == expected
            writer.close()


async def test_a_silent_tunnel_is_closed() -> None:
    async with listening(echo) as port:
        internet = Internet(port)
        async with a_worker(allowing(HOST, read_timeout_s=0.2), resolve=internet.resolve, dial=internet.dial) as worker:
            reader, writer, _ = await connect(worker, f"{HOST}:443")
            assert await reader.read() == b""
            writer.close()


async def test_the_end_of_the_host_reaches_the_worker_after_its_last_bytes() -> None:
    async def farewell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1_000_000)
        writer.close()

    async with listening(farewell) as port:
        internet = Internet(port)
        async with a_worker(allowing(HOST), resolve=internet.resolve, dial=internet.dial) as worker:
            reader, writer, _ = await connect(worker, f"{HOST}:443")
            assert len(await reader.read()) == 1_000_000
            writer.close()


async def test_the_end_of_the_worker_reaches_the_host() -> None:
    ended = asyncio.Event()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.set()

    async with listening(host) as port:
        internet = Internet(port)
        async with a_worker(allowing(HOST), resolve=internet.resolve, dial=internet.dial) as worker:
            _, writer, _ = await connect(worker, f"{HOST}:443")
            writer.close()
            await ended.wait()


async def test_closing_the_attachment_closes_its_tunnels() -> None:
    async with listening(echo) as port:
        internet = Internet(port)
        async with a_worker(allowing(HOST), resolve=internet.resolve, dial=internet.dial) as worker:
            reader, writer, _ = await connect(worker, f"{HOST}:443")
            await worker.attachment.close()
            assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize("target", ["a..example.org:443", "a" * 70 + ".example.org:443", f"{'a.' * 126}example.org:443"])
async def test_a_name_that_cannot_be_looked_up_is_refused_before_it_is(target: str) -> None:
    async with a_worker(allowing("*.example.org")) as worker:
        reader, writer, status = await connect(worker, target)
        error = await error_of(reader)
        writer.close()
    assert (status, error["code"]) == (400, "bad_target")
    assert "not a host name" in error["message"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_tunnel_to_the_gateway_itself_leads_to_the_model_endpoints(host: str) -> None:
    model = ScriptedModel()
    async with model.serve() as url, a_worker(settings(url)) as worker:
        reader, writer, status = await connect(worker, f"{host}:{worker.port}")
        assert status == 200
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "SAY:through the tunnel"}]}).encode()
        head = f"POST /openai/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        assert b"through the tunnel" in await reader.read()
        writer.close()
    assert worker.usages == [("g1.t1", Usage(INPUT_TOKENS, OUTPUT_TOKENS))]
    assert worker.refusals == []


async def test_tunnels_within_tunnels_end_at_the_limit_of_connections() -> None:
    async with a_worker(allowing()) as worker:
        own = f"CONNECT 127.0.0.1:{worker.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        reader, writer = await worker.connect()
        opened = 0
        while True:
            writer.write(own)
            if not await reader.readline():
                break
            assert await reader.readline() == b"\r\n"
            opened += 1
        writer.close()
    assert opened == MAX_CONNECTIONS


async def test_a_client_that_knows_only_the_variables_reaches_an_allowed_host_and_no_other(tmp_path: Path) -> None:
    async def site(request: web.Request) -> web.Response:
        return web.Response(text="the site says hello")

    certificate = a_certificate(tmp_path, HOST)
    async with serving(site, certificate) as url:
        internet = Internet(int(url.rpartition(":")[2]))
        async with a_worker(allowing(HOST), resolve=internet.resolve, dial=internet.dial) as worker:
            environment = {**proxy_environment(worker.port), "SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
            assert await fetch(f"https://{HOST}/", environment) == (0, "the site says hello")
            assert internet.dialled == [(GLOBAL, 443)]
            code, said = await fetch("https://evil.example.net/", environment)
            assert code != 0
            assert "403" in said
            code, said = await fetch(f"http://{HOST}/", environment)
            assert code != 0
            assert "403" in said
    assert [task for task, _ in worker.refusals] == ["g1.t1"] * 2
    assert "evil.example.net:443" in worker.refusals[0][1]


async def fetch(url: str, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output of a program that fetches a page as any program would."""
    source = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode(), end='')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
