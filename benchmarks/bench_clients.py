"""What a client feels of the others: submit and status alone, and beside clients that are a burden, in turn within one run.

The others are 10,000 idle clients, 200 that read a byte now and then, or one that never reads what it asks for. They live in a
process of their own (tests/support/crowd.py).

    python benchmarks/bench_clients.py [--json] [-n 100] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.held import BLOCKER, CONFIG
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.crowd import crowd
from tests.support.daemon import DaemonProcess

CROWDS = {"idle": 10_000, "slow": 200, "deaf": 1}
TASKS = 2_000
"""That are there before, so that lists are long."""
NO_OP = {"function": "supervisord_agents.workers.builtin:noop"}


Times = dict[str, list[float]]


async def measure(directory: Path, repeats: int, rounds: int) -> dict[str, dict[str, float]]:
    """By crowd: `submit_` and `status_` `p50_us` and `p99_us`, each also as `alone_…`, and the daemon's `rss_mib` beside it."""
    daemon = DaemonProcess(directory, CONFIG.format(workers=0))
    await daemon.start()
    alone: dict[str, Times] = {kind: {"submit": [], "status": []} for kind in CROWDS}
    beside: dict[str, Times] = {kind: {"submit": [], "status": []} for kind in CROWDS}
    rss: dict[str, float] = {}
    try:
        async with daemon.client() as client:
            held = (await client.submit([BLOCKER])).tasks[0]
            await client.submit([_waiting(held, f"t{number}") for number in range(TASKS)])
            await _take(client, held, repeats, {"submit": [], "status": []})
            for _ in range(rounds):
                for kind, count in CROWDS.items():
                    await _take(client, held, repeats, alone[kind])
                    with crowd(kind, daemon.socket, count):
                        await _take(client, held, repeats, beside[kind])
                        rss[kind] = (await client.status()).rss_bytes / (1 << 20)
    finally:
        daemon.close()
    return {kind: {**_figures(beside[kind], ""), **_figures(alone[kind], "alone_"), "rss_mib": rss[kind]} for kind in CROWDS}


def _waiting(held: str, name: str) -> TaskSpec:
    return TaskSpec(id=name, agent="python", input=NO_OP, dependencies=(held,))


async def _take(client: Client, held: str, repeats: int, times: Times) -> None:
    for _ in range(repeats):
        begin = time.perf_counter()
        await client.submit([_waiting(held, "t")])
        middle = time.perf_counter()
        await client.status()
        times["submit"].append(middle - begin)
        times["status"].append(time.perf_counter() - middle)


def _figures(times: Times, prefix: str) -> dict[str, float]:
    figures = {}
    for name, values in times.items():
        figures[f"{prefix}{name}_p50_us"] = statistics.median(values) * 1e6
        figures[f"{prefix}{name}_p99_us"] = statistics.quantiles(values, n=100)[98] * 1e6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="What a client feels of the others.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-n", type=int, default=100, metavar="REPEATS", help="submits, and status calls, a turn")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-clients-") as directory:
        figures = asyncio.run(measure(Path(directory), arguments.n, arguments.rounds))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    names = ("submit_p50_us", "submit_p99_us", "status_p50_us", "status_p99_us")
    print("microseconds beside the others, and alone in the same run")
    print(" ".join([f"{'others':12}", *(f"{name.removesuffix('_us'):>26}" for name in names), f"{'RSS':>9}"]))
    for kind, taken in figures.items():
        cells = [
            f"{taken[name]:.0f} / {taken[f'alone_{name}']:.0f} = {taken[name] / taken[f'alone_{name}']:.2f} x" for name in names
        ]
        print(f"{CROWDS[kind]:6} {kind:5}", *(f"{cell:>26}" for cell in cells), f"{taken['rss_mib']:5.0f} MiB")


if __name__ == "__main__":
    main()
