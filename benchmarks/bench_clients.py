"""What a client feels of the others: submit and status with nobody else, and beside clients that are a burden.

The four take turns within one run, several times, with one daemon: nobody else, 10,000 idle clients, 200 that read a byte now and
then, one that never reads what it asks for. The crowds live in processes of their own (tests/support/crowd.py).

    python benchmarks/bench_clients.py [--json] [-n 300] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.crowd import crowd
from tests.support.daemon import DaemonProcess

CROWDS = {"nobody": 0, "idle": 10_000, "slow": 200, "deaf": 1}
TASKS = 2_000
"""That are there before, so that lists are long."""
NO_OP = {"function": "supervisord_agents.workers.builtin:noop"}
BLOCKER = TaskSpec(id="blocker", input={"argv": ["sleep", "3600"]}, timeout_s=3600.0, pool="parked")
CONFIG = """
[pools.standard]
min_workers = 0
max_workers = 2
[pools.parked]
min_workers = 0
max_workers = 1
[daemon]
log_level = "warning"
"""


async def measure(directory: Path, repeats: int, rounds: int) -> dict[str, dict[str, float]]:
    """By crowd: `submit_` and `status_` `p50_us` and `p99_us`, and the daemon's `rss_mib` at the end of it."""
    daemon = DaemonProcess(directory, CONFIG)
    await daemon.start()
    times: dict[str, dict[str, list[float]]] = {kind: {"submit": [], "status": []} for kind in CROWDS}
    rss: dict[str, float] = {}
    try:
        async with daemon.client() as client:
            held = (await client.submit([BLOCKER])).tasks[0]
            await client.submit([_waiting(held, f"t{number}") for number in range(TASKS)])
            await _take(client, held, repeats, {"submit": [], "status": []})
            for _ in range(rounds):
                for kind, count in CROWDS.items():
                    with _crowd(kind, daemon.socket, count):
                        await _take(client, held, repeats, times[kind])
                        rss[kind] = (await client.status()).rss_bytes / (1 << 20)
    finally:
        daemon.close()
    return {kind: {**_figures(taken), "rss_mib": rss[kind]} for kind, taken in times.items()}


def _waiting(held: str, name: str) -> TaskSpec:
    return TaskSpec(id=name, agent="python", input=NO_OP, dependencies=(held,))


@contextlib.contextmanager
def _crowd(kind: str, path: Path, count: int) -> Iterator[None]:
    if not count:
        yield
        return
    with crowd(kind, path, count):
        yield


async def _take(client: Client, held: str, repeats: int, times: dict[str, list[float]]) -> None:
    for _ in range(repeats):
        begin = time.perf_counter()
        await client.submit([_waiting(held, "t")])
        middle = time.perf_counter()
        await client.status()
        times["submit"].append(middle - begin)
        times["status"].append(time.perf_counter() - middle)


def _figures(times: dict[str, list[float]]) -> dict[str, float]:
    figures = {}
    for name, values in times.items():
        figures[f"{name}_p50_us"] = statistics.median(values) * 1e6
        figures[f"{name}_p99_us"] = statistics.quantiles(values, n=100)[98] * 1e6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="What a client feels of the others.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-n", type=int, default=300, metavar="REPEATS", help="submits, and status calls, a crowd and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-clients-") as directory:
        figures = asyncio.run(measure(Path(directory), arguments.n, arguments.rounds))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    alone = figures["nobody"]
    print(f"{'beside':8} {'clients':>7} {'submit p50':>20} {'p99':>20} {'status p50':>20} {'p99':>20} {'RSS':>9}")
    for kind, taken in figures.items():
        cells = [f"{value:9.0f} us ({value / alone[name]:.2f} x)" for name, value in taken.items() if name.endswith("_us")]
        print(f"{kind:8} {CROWDS[kind]:7} {' '.join(f'{cell:>20}' for cell in cells)} {taken['rss_mib']:5.0f} MiB")


if __name__ == "__main__":
    main()
