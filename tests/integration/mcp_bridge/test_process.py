"""`agentctl mcp` as a process: what it writes, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.support.mcp_session import AGENTCTL

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
STATUS = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "status", "arguments": {}}}


async def started(tmp_path: Path) -> Process:
    """A bridge that has answered the handshake; nobody listens at its socket."""
    socket = str(tmp_path / "nobody.sock")
    process = await asyncio.create_subprocess_exec(
        str(AGENTCTL), "--socket", socket, "mcp", stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=tmp_path
    )
    send(process, INITIALIZE)
    assert process.stdout is not None
    answer = json.loads(await process.stdout.readline())
    assert answer["result"]["serverInfo"]["name"] == "agent-supervisor"
    return process


def send(process: Process, message: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")


async def test_the_end_of_stdin_ends_it_even_with_a_call_under_way(tmp_path: Path) -> None:
    process = await started(tmp_path)
    send(process, INITIALIZED)
    send(process, STATUS)
    assert process.stdin is not None
    process.stdin.close()
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    process = await started(tmp_path)
    process.send_signal(number)
    assert await process.wait() == -number


async def test_garbage_on_stdin_does_not_end_it(tmp_path: Path) -> None:
    process = await started(tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"this is no message\n")
    send(process, {"jsonrpc": "2.0", "id": 3, "method": "ping"})
    answers = [json.loads(await process.stdout.readline())]
    while answers[-1].get("id") != 3:
        answers.append(json.loads(await process.stdout.readline()))
    assert answers[-1]["result"] == {}
    process.stdin.close()
    await process.communicate()
