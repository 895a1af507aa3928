"""The daemon as its clients feel it: durable submits, and no-op tasks in warm workers, end to end.

Every figure stands beside what it is compared with, taken in turn in the same run on the same file system:

    one submit at a time        against a bare write + fdatasync, and a SQLite insert with synchronous=FULL
    64 clients at a time        submits a second
    1,000 tasks a submit        tasks a second
    no-op tasks                 in 2 warm workers: submitted, run in the sandbox, result recorded, told to a waiting client

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
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

CLIENTS = 64
BATCH = 1_000
NO_OPS = 2_000
NO_OP = TaskSpec(agent="python", input={"function": "supervisord_agents.workers.builtin:noop"})
BLOCKER = TaskSpec(id="blocker", input={"argv": ["sleep", "3600"]}, timeout_s=3600.0, pool="parked")
CONFIG = """
[pools.standard]
min_workers = 2
max_workers = 2
[pools.parked]
min_workers = 0
max_workers = 1
[daemon]
log_level = "warning"
"""


async def measure(directory: Path, repeats: int) -> dict[str, float]:
    """All figures: `_us` microseconds, `_per_s` a second."""
    daemon = DaemonProcess(directory, CONFIG)
    await daemon.start()
    try:
        async with daemon.client() as client:
            figures = await _no_ops(client)
            held = (await client.submit([BLOCKER])).tasks[0]
            figures |= await _one_at_a_time(client, held, directory, repeats)
            figures |= await _many_clients(daemon, held)
            figures |= await _batches(client, held)
        return figures
    finally:
        daemon.close()


def _waiting(held: str, name: str = "t") -> TaskSpec:
    """A task that does not run during the measurement: what is timed is the submit."""
    return TaskSpec(id=name, agent="python", input=NO_OP.input, dependencies=(held,))


async def _one_at_a_time(client: Client, held: str, directory: Path, repeats: int) -> dict[str, float]:
    bare, insert = _bare_fdatasync(directory), _sqlite_insert(directory)
    times: dict[str, list[float]] = {"submit": [], "fdatasync": [], "sqlite_full": []}
    for _ in range(repeats):
        begin = time.perf_counter()
        await client.submit([_waiting(held)])
        times["submit"].append(time.perf_counter() - begin)
        times["fdatasync"].append(_timed(bare))
        times["sqlite_full"].append(_timed(insert))
    figures = {f"{name}_p50_us": statistics.median(values) * 1e6 for name, values in times.items()}
    figures["submit_p99_us"] = statistics.quantiles(times["submit"], n=100)[98] * 1e6
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


async def _many_clients(daemon: DaemonProcess, held: str, seconds: float = 4.0) -> dict[str, float]:
    clients = [await Client.connect(daemon.socket) for _ in range(CLIENTS)]
    until = time.perf_counter() + seconds

    async def submit(client: Client) -> int:
        count = 0
        while time.perf_counter() < until:
            await client.submit([_waiting(held)])
            count += 1
        return count

    begin = time.perf_counter()
    counts = await asyncio.gather(*map(submit, clients))
    elapsed = time.perf_counter() - begin
    for client in clients:
        await client.aclose()
    return {"submits_64_clients_per_s": sum(counts) / elapsed}


async def _batches(client: Client, held: str, rounds: int = 10) -> dict[str, float]:
    graph = [_waiting(held, f"t{number}") for number in range(BATCH)]
    begin = time.perf_counter()
    for _ in range(rounds):
        await client.submit(graph)
    return {"tasks_1000_a_submit_per_s": rounds * BATCH / (time.perf_counter() - begin)}


async def _no_ops(client: Client) -> dict[str, float]:
    warm = await client.submit([NO_OP] * 20)
    await client.wait([warm.graph], timeout_s=60)
    begin = time.perf_counter()
    graphs = [(await client.submit([NO_OP] * BATCH)).graph for _ in range(NO_OPS // BATCH)]
    waited = await client.wait(graphs, timeout_s=600)
    elapsed = time.perf_counter() - begin
    assert waited.done
    return {"no_op_tasks_per_s": NO_OPS / elapsed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-n", type=int, default=300, help="submits of the one-at-a-time round")
    parser.add_argument("--directory", help="where state and comparison files lie (default: a temporary directory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-tasks-", dir=arguments.directory) as directory:
        figures = asyncio.run(measure(Path(directory), arguments.n))
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:<28}{value:>14,.1f}")
    print(f"submit against fdatasync    {figures['submit_p50_us'] / figures['fdatasync_p50_us']:>14.2f} x")
    print(f"submit against SQLite FULL  {figures['submit_p50_us'] / figures['sqlite_full_p50_us']:>14.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
