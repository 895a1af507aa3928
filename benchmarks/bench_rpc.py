"""The round trip of one call, with nothing behind it: what the protocol, the server and the client cost.

A server in a process of its own answers `show` with a canned reply; one client asks, one call at a time. Both ends run on
asyncio's own loop, then both on uvloop, turn by turn; and a bare echo over the same kind of socket is the floor of each loop.

    python benchmarks/bench_rpc.py [--json] [-n 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import Unavailable
from supervisord_agents.rpc.client import Client
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.rpc.server import Server
from supervisord_agents.wire import messages as m

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TURNS = 5
ECHO_BYTES = 100
START_TIMEOUT_S = 30.0
SHOWN = m.ShowReply(
    task=m.TaskView(
        id="g.t", graph="g", agent="command", type="", state=State.READY, priority=5, attempt=0, max_retries=3, submitted_at=1.0
    ),
    spec=TaskSpec(id="t", input={"argv": ["true"]}),
    dependencies={},
    dependents=[],
    history=[],
    result_path="/r",
    log_path="/l",
)


class Canned:
    """A handler with nothing behind it."""

    async def handle(self, request: m.Request, peer: Peer) -> m.Reply:
        return SHOWN

    def subscribe(self, request: m.Subscribe, peer: Peer) -> AsyncGenerator[m.Item, None]:
        raise NotImplementedError


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Asker(Echo):
    """Sends, and tells of the answer by a future."""

    async def ask(self, data: bytes) -> None:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        await self._answer

    def data_received(self, data: bytes) -> None:
        self._answer.set_result(None)


def measure(repeats: int) -> dict[str, float]:
    """Medians in microseconds: `rpc_<loop>_p50_us`, and `echo_<loop>_p50_us` of the floor."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-rpc-") as name:
        servers = {loop: _spawn(loop, Path(name) / loop) for loop in LOOPS}
        try:
            for _ in range(TURNS):
                for loop in LOOPS:
                    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                        for kind, taken in runner.run(_turn(Path(name) / loop, repeats // TURNS)).items():
                            times.setdefault(f"{kind}_{loop}_p50_us", []).extend(taken)
        finally:
            for server in servers.values():
                server.kill()
                server.wait()
    return {kind: statistics.median(taken) * 1e6 for kind, taken in times.items()}


def _spawn(loop: str, socket: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, __file__, "--serve", loop, str(socket)]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL)  # the log


async def _serve(socket: Path) -> None:
    server = Server(Canned(), epoch="e")
    await server.start(socket)
    await asyncio.get_running_loop().create_unix_server(Echo, _echo(socket))
    await asyncio.Event().wait()


def _echo(socket: Path) -> str:
    return f"{socket}.echo"


async def _turn(socket: Path, repeats: int) -> dict[str, list[float]]:
    client = await _connected(socket)
    _, asker = await asyncio.get_running_loop().create_unix_connection(Asker, _echo(socket))
    data = bytes(ECHO_BYTES)
    times: dict[str, list[float]] = {"rpc": [], "echo": []}
    for _ in range(repeats):
        begin = time.perf_counter()
        await client.show("g.t")
        times["rpc"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        await asker.ask(data)
        times["echo"].append(time.perf_counter() - begin)
    await client.aclose()
    return times


async def _connected(socket: Path) -> Client:
    until = time.monotonic() + START_TIMEOUT_S
    while not os.path.exists(_echo(socket)):
        if time.monotonic() > until:
            raise Unavailable("the server of the benchmark did not start.")
        await asyncio.sleep(0.01)
    return await Client.connect(socket)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-n", type=int, default=2_000, help="calls with each loop")
    parser.add_argument("--serve", nargs=2, metavar=("LOOP", "SOCKET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        loop, socket = arguments.serve
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(_serve(Path(socket)))
    figures = measure(arguments.n)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:<28}{value:>14,.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
