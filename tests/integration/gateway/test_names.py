"""Programs that know no proxy, inside a real sandbox: names, and connections to what the names stand for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from sandbox.spawner import Sandbox, Spawner
from sandbox.spec import Bind, SandboxSpec
from supervisord_agents.gateway.server import Attachment, Gateway
from supervisord_agents.hosts import AllowedHosts
from tests.support.gateway import GLOBAL, Internet, a_certificate, allowing, serving
from tests.support.sandbox import pipe

HOST = "site.example.org"
PORT = 8080
TIMEOUT_S = 60.0
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
ASK = """
import socket, struct, sys
name, kind = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack(">2H", int(kind), 1)
stream = socket.create_connection(("127.0.0.1", 53))
stream.sendall(struct.pack(">H", len(query)) + query)
answer = stream.recv(1000)[2:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(query, ("127.0.0.1", 53))
assert udp.recv(1000) == answer
print(answer[3] & 15, struct.unpack(">4H", answer[4:12]))
"""
"""Prints the code of the answer and how much is in it; both ways of asking give the same."""


class Inside(NamedTuple):
    """A sandbox whose network the gateway has, and what was told of it."""

    gateway: Gateway
    spawner: Spawner
    allowed: AllowedHosts
    told: list[tuple[str, str]]
    binds: tuple[Bind, ...]
    environment: dict[str, str]

    async def spawn(self, *argv: str, stdout: int) -> tuple[Sandbox, Attachment]:
        spec = SandboxSpec(
            argv=argv,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **self.environment},
            binds=self.binds,
            loopback_listen=(PORT,),
            loopback_any=tuple(self.allowed.ports),
            dns=True,
            optional_layers=("cgroup",),
        )
        sandbox = await self.spawner.spawn(spec, {1: stdout, 2: stdout})
        attachment = await self.gateway.attach(sandbox.listeners, "w1", self.allowed)
        attachment.task = "g1.t1"
        return sandbox, attachment

    async def run(self, *argv: str) -> tuple[int, str]:
        """How a program ended, and what it said."""
        with pipe() as (reader, writer):
            sandbox, attachment = await self.spawn(*argv, stdout=writer.fileno())
            writer.close()
            said = await asyncio.to_thread(reader.read)
        code = (await sandbox.wait()).code
        await attachment.close()
        return code, said.strip()

    async def python(self, code: str, *words: str) -> tuple[int, str]:
        return await self.run("python3", "-I", "-c", code, *words)


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    started = Spawner.start(cgroup_name=f"test-names-{os.getpid()}")
    yield started
    await started.aclose()


@contextlib.asynccontextmanager
async def inside(spawner: Spawner, internet: Internet, *hosts: str, shown: Path | None = None) -> AsyncIterator[Inside]:
    """A gateway for sandboxes; `shown` is a directory with the certificate that programs are to trust."""
    told: list[tuple[str, str]] = []
    gateway = Gateway(
        allowing(*hosts), lambda task, usage: None, lambda *line: told.append(line), resolve=internet.resolve, dial=internet.dial
    )
    await gateway.start()
    trusted = {"SSL_CERT_FILE": "/certificates/certificate.pem", "CURL_CA_BUNDLE": "/certificates/certificate.pem"}
    binds = (Bind(str(shown), "/certificates"),) if shown else ()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield Inside(gateway, spawner, AllowedHosts(hosts), told, binds, trusted if shown else {})
    finally:
        await gateway.aclose()


@contextlib.asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[tuple[Internet, Path]]:
    """A TLS server that stands in for HOST and all other hosts, and where its certificate is."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello from {request.host}")

    directory = tmp_path / "certificates"
    directory.mkdir()
    async with serving(hello, a_certificate(directory, HOST)) as url:
        (directory / "key.pem").unlink()
        yield Internet(int(url.rpartition(":")[2])), directory


async def test_programs_without_a_proxy_reach_an_allowed_host_by_tls_and_no_other(spawner: Spawner, tmp_path: Path) -> None:
    async with site(tmp_path) as (internet, shown), inside(spawner, internet, HOST, shown=shown) as worker:
        assert await worker.python(FETCH, f"https://{HOST}/") == (0, f"hello from {HOST}")
        assert await worker.run("curl", "-sS", f"https://{HOST}/") == (0, f"hello from {HOST}")
        assert internet.dialled == [(GLOBAL, 443)] * 2
        assert worker.told == []
        code, said = await worker.run("curl", "-sS", "https://evil.example.net/")
        assert code == 6
        assert "Could not resolve host" in said
        code, said = await worker.run("getent", "hosts", "evil.example.net")
        assert (code, said) == (2, "")
    assert len(internet.dialled) == 2
    assert [line for _, line in worker.told if "evil.example.net" not in line] == []
    assert 'add "evil.example.net" to gateway.allowed_hosts' in worker.told[0][1]


async def test_a_name_is_an_address_of_the_sandboxs_own(spawner: Spawner) -> None:
    async with inside(spawner, Internet(0), "*.example.org:8443", "b.example.net") as worker:
        code, said = await worker.run("getent", "ahosts", "a.b.Example.org")
        assert code == 0
        assert {line.split()[0].rpartition(".")[0].partition(".")[0] for line in said.splitlines()} == {"127"}
        code, said = await worker.run("getent", "ahostsv4", "localhost")
        assert said.startswith("127.0.0.1 ")
        code, said = await worker.run("getent", "ahostsv4", "b.example.net")
        assert code == 0, "to those who ask for what can be reached, names have no address"
        for name in ("example.org", "example.net", "org", "c.example.net"):
            assert (await worker.run("getent", "hosts", name))[0] == 2, name


async def test_there_are_only_addresses_and_no_way_to_send_anything_out_by_a_question(spawner: Spawner) -> None:
    no_address, nxdomain = (0, "0 (1, 0, 0, 0)"), (0, "3 (1, 0, 0, 0)")
    internet = Internet(0)
    async with inside(spawner, internet, "*.example.org") as worker:
        assert await worker.python(ASK, HOST, "1") == (0, "0 (1, 1, 0, 0)")
        for kind in ("28", "16", "10", "255", "65", "15"):  # AAAA, TXT, NULL, ANY, HTTPS, MX
            assert await worker.python(ASK, HOST, kind) == no_address
        assert await worker.python(ASK, "secret.evil.example.net", "16") == nxdomain
        assert await worker.python(ASK, "1.0.0.127.in-addr.arpa", "12") == nxdomain
        assert worker.told == []
    assert internet.resolved == []


async def test_a_host_that_is_private_or_does_not_answer_resets_and_is_told(spawner: Spawner) -> None:
    connect = "import socket, sys; s = socket.create_connection((sys.argv[1], 443), 20); print(s.recv(1))"
    internet = Internet(1)
    async with inside(spawner, internet, HOST) as worker:
        code, said = await worker.python(connect, HOST)
        assert code == 1
        assert "ConnectionResetError" in said
        assert f"refused a connection to {HOST}:443: {HOST}:443 could not be connected to" in worker.told[-1][1]
        internet.addresses = [GLOBAL, "192.168.1.1"]
        code, said = await worker.python(connect, HOST)
        assert "ConnectionResetError" in said
        assert f"{HOST} resolves to 192.168.1.1" in worker.told[-1][1]
        assert len(internet.dialled) == 1
        code, said = await worker.python(connect, "127.77.1.1")
        assert "ConnectionResetError" in said
        assert "stands for no name" in worker.told[-1][1]


async def test_only_the_allowed_ports_are_there_and_each_for_its_own_hosts(spawner: Spawner) -> None:
    connect = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20); print(s.recv(1))"
    async with inside(spawner, Internet(0), f"{HOST}:8443", "other.example.org:22") as worker:
        assert "ConnectionRefusedError" in (await worker.python(connect, HOST, "443"))[1]
        assert "ConnectionResetError" in (await worker.python(connect, HOST, "22"))[1]
    assert [line for _, line in worker.told if f"host {HOST}:22 is not allowed" in line] != []


async def test_what_one_task_has_looked_up_is_not_there_for_the_next(spawner: Spawner) -> None:
    code = """
import socket, sys
address = socket.getaddrinfo("a.example.org", 443)[0][4]
print(address[0], flush=True)
sys.stdin.readline()
socket.create_connection(address, 20).recv(1)
"""
    async with inside(spawner, Internet(0), "*.example.org") as worker:
        spec = SandboxSpec(
            argv=("python3", "-I", "-c", code),
            env={"PATH": "/usr/bin:/bin"},
            loopback_any=(443,),
            dns=True,
            optional_layers=("cgroup",),
        )
        with pipe() as (reader, writer), pipe() as (go_reader, go):
            sandbox = await spawner.spawn(spec, {0: go_reader.fileno(), 1: writer.fileno()})
            writer.close()
            attachment = await worker.gateway.attach(sandbox.listeners, "w1", worker.allowed)
            attachment.task = "g1.t1"
            address = (await asyncio.to_thread(reader.readline)).strip()
            attachment.task = "g1.t2"
            go.write("\n")
            go.close()
            assert (await sandbox.wait()).code == 1
            await attachment.close()
    assert worker.told == [
        ("g1.t2", f"the gateway refused a connection to {address}:443: this address stands for no name that was looked up.")
    ]


async def test_a_flood_of_questions_leaves_the_daemon_time(spawner: Spawner) -> None:
    """The socket is not read for a while after each burst: all that are sent at once are not answered at once."""
    flood = """
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
query = bytes([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1])
udp.settimeout(1)
for _ in range(100000): udp.sendto(query, ("127.0.0.1", 53))
answers = 0
try:
    while udp.recv(100): answers += 1
except TimeoutError:
    print(answers)
"""
    async with inside(spawner, Internet(0)) as worker:
        code, said = await worker.python(flood)
    assert code == 0
    assert 0 < int(said) < 10_000
    assert len(worker.told) == 1


async def test_the_sockets_are_closed_with_the_attachment(spawner: Spawner) -> None:
    async with inside(spawner, Internet(0), HOST) as worker:
        with pipe() as (_, writer):
            sandbox, attachment = await worker.spawn("sleep", "1000", stdout=writer.fileno())
        await attachment.close()
        assert [listener.fileno() for listener in sandbox.listeners if isinstance(listener, socket.socket)] == [-1] * 4
        sandbox.kill()
        await sandbox.wait()
