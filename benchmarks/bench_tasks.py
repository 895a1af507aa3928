"""The daemon as its clients feel it: durable submits, and no-op tasks in warm workers, end to end.

Every figure stands beside what it is compared with, taken in turn in the same run on the same file system:

    one submit at a time        against a bare write + fdatasync, and a SQLite insert with synchronous=FULL
    64 clients at a time        submits a second, and what CPU time each takes of the daemon (syncs included) and of the clients
    1,000 tasks a submit        tasks a second
    no-op tasks                 in 2 warm workers: submitted, run in the sandbox, result recorded, told to a waiting client:
                                functions with a process each, functions that share one (tasks_per_process), and /bin/true
    one call                    of the protocol with nothing behind it, and a bare echo (bench_rpc.py)

The daemon runs on uvloop, as ever. The clients run on asyncio's own loop and on uvloop, turn by turn.

    python benchmarks/bench_tasks.py [--json] [-n 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from benchmarks import bench_rpc
from benchmarks.bench_rpc import LOOPS
from benchmarks.held import BLOCKER, CONFIG
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

CLIENTS = 64
BATCH = 1_000
NO_OPS = 2_000
TURNS = 5
NO_OP = TaskSpec(agent="python", input={"function": "supervisord_agents.workers.builtin:noop"})
NO_OPS_OF = {
    "no_op_tasks_per_s": NO_OP,
    "no_op_tasks_in_one_process_per_s": msgspec.structs.replace(NO_OP, agent="shared"),
    "bin_true_per_s": TaskSpec(input={"argv": ["/bin/true"]}),
}
T = TypeVar("T")
SHARED = """
[agents.shared]
adapter = "supervisord_agents.workers.agents.python:PythonAgent"
options = { tasks_per_process = 1000 }
"""


def measure(directory: Path, repeats: int) -> dict[str, float]:
    """All figures: `_us` microseconds, `_per_s` a second. Where a loop is named, the clients ran on it."""
    daemon = DaemonProcess(directory, CONFIG.format(workers=2) + SHARED)
    _run("uvloop", daemon.start())
    try:
        figures = _run("uvloop", _no_ops(daemon))
        held = _run("uvloop", _hold(daemon))
        figures |= _one_at_a_time(daemon, held, directory, repeats)
        figures |= _many_clients(daemon, held)
        figures |= _run("uvloop", _batches(daemon, held))
    finally:
        daemon.close()
    return figures | bench_rpc.measure(repeats * 5)


def _run(loop: str, job: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(job)


async def _hold(daemon: DaemonProcess) -> str:
    """A task that what is submitted later can wait for; gives its id."""
    async with daemon.client() as client:
        return (await client.submit([BLOCKER])).tasks[0]


def _waiting(held: str, name: str = "t") -> TaskSpec:
    """A task that does not run during the measurement: what is timed is the submit."""
    return TaskSpec(id=name, agent="python", input=NO_OP.input, dependencies=(held,))


def _one_at_a_time(daemon: DaemonProcess, held: str, directory: Path, repeats: int) -> dict[str, float]:
    bare, insert = _bare_fdatasync(directory), _sqlite_insert(directory)
    times: dict[str, list[float]] = {name: [] for name in ("submit_uvloop", "submit_asyncio", "fdatasync", "sqlite_full")}

    async def turn(loop: str) -> None:
        async with daemon.client() as client:
            for _ in range(repeats // TURNS):
                begin = time.perf_counter()
                await client.submit([_waiting(held)])
                times[f"submit_{loop}"].append(time.perf_counter() - begin)
                times["fdatasync"].append(_timed(bare))
                times["sqlite_full"].append(_timed(insert))

    for _ in range(TURNS):
        for loop in LOOPS:
            _run(loop, turn(loop))
    figures = {f"{name}_p50_us": statistics.median(values) * 1e6 for name, values in times.items()}
    figures |= {f"{name}_p99_us": statistics.quantiles(values, n=100)[98] * 1e6 for name, values in times.items()}
    return figures


def _timed(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _bare_fdatasync(directory: Path) -> Callable[[], None]:
    descriptor = os.open(directory / "bare", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, 16 << 20)
    os.fsync(descriptor)
    record = b"x" * 200
    offset = 0

    def write() -> None:
        nonlocal offset
        os.pwrite(descriptor, record, offset)
        os.fdatasync(descriptor)
        offset += len(record)

    return write


def _sqlite_insert(directory: Path) -> Callable[[], None]:
    connection = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute("create table tasks (id integer primary key, record blob)")
    record = b"x" * 200
    return lambda: connection.execute("insert into tasks (record) values (?)", (record,)) and None


def _many_clients(daemon: DaemonProcess, held: str, seconds: float = 6.0) -> dict[str, float]:
    figures: dict[str, float] = {}
    for loop in LOOPS:
        count, elapsed, ours, its = 0, 0.0, -time.process_time(), -_cpu_s(daemon)
        for _ in range(TURNS):
            submitted, took = _run(loop, _submit_all(daemon, held, seconds / TURNS))
            count, elapsed = count + submitted, elapsed + took
        figures[f"submits_64_clients_{loop}_per_s"] = count / elapsed
        figures[f"submits_64_clients_{loop}_client_cpu_us"] = (ours + time.process_time()) / count * 1e6
        figures[f"submits_64_clients_{loop}_daemon_cpu_us"] = (its + _cpu_s(daemon)) / count * 1e6
    return figures


async def _submit_all(daemon: DaemonProcess, held: str, seconds: float) -> tuple[int, float]:
    """So many submits, and the seconds that they took."""
    clients = [await Client.connect(daemon.socket) for _ in range(CLIENTS)]
    begin = time.perf_counter()

    async def submit(client: Client) -> int:
        count = 0
        while time.perf_counter() < begin + seconds:
            await client.submit([_waiting(held)])
            count += 1
        return count

    counts = await asyncio.gather(*map(submit, clients))
    elapsed = time.perf_counter() - begin
    for client in clients:
        await client.aclose()
    return sum(counts), elapsed


def _cpu_s(daemon: DaemonProcess) -> float:
    assert daemon.process is not None
    times = psutil.Process(daemon.process.pid).cpu_times()
    return times.user + times.system


async def _batches(daemon: DaemonProcess, held: str, rounds: int = 20) -> dict[str, float]:
    graph = [_waiting(held, f"t{number}") for number in range(BATCH)]
    async with daemon.client() as client:
        begin = time.perf_counter()
        for _ in range(rounds):
            await client.submit(graph)
        return {"tasks_1000_a_submit_per_s": rounds * BATCH / (time.perf_counter() - begin)}


async def _no_ops(daemon: DaemonProcess) -> dict[str, float]:
    figures = {}
    async with daemon.client() as client:
        for name, task in NO_OPS_OF.items():
            warm = await client.submit([task] * 20)
            await client.wait([warm.graph], timeout_s=60)
            begin = time.perf_counter()
            graphs = [(await client.submit([task] * BATCH)).graph for _ in range(NO_OPS // BATCH)]
            waited = await client.wait(graphs, timeout_s=600)
            elapsed = time.perf_counter() - begin
            assert waited.done
            figures[name] = NO_OPS / elapsed
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-n", type=int, default=300, help="submits one at a time, with each loop")
    parser.add_argument("--directory", help="where state and comparison files lie (default: a temporary directory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-tasks-", dir=arguments.directory) as directory:
        figures = measure(Path(directory), arguments.n)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:<44}{value:>14,.1f}")
    for floor in ("fdatasync", "sqlite_full"):
        ratio = figures["submit_uvloop_p50_us"] / figures[f"{floor}_p50_us"]
        print(f"{f'submit (uvloop) against {floor}':<44}{ratio:>14.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
