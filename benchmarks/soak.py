"""Does it stay as large as it is? A real daemon at full load for minutes: no-op functions with results, in graphs of ten.

Ended graphs leave memory for the archive (tasks.keep_ended is small), snapshots are written, one graph in ten is cancelled.
Sampled every few seconds: resident memory, descriptors, threads, and what lies on the disk. The first half is warming up (the
ring of the event stream fills); over the rest a line is laid through each by least squares. Exit 0 if memory grows by less than
LIMIT_MIB_AN_HOUR and descriptors by less than LIMIT_DESCRIPTORS_AN_HOUR.

    python benchmarks/soak.py [--minutes 30] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

LIMIT_MIB_AN_HOUR = 30.0
LIMIT_DESCRIPTORS_AN_HOUR = 5.0
SAMPLE_S = 5.0
OPEN_GRAPHS = 20
ECHO = "supervisord_agents.workers.builtin:echo"
CONFIG = """
[daemon]
log_level = "warning"
[pools.standard]
min_workers = 2
max_workers = 2
[tasks]
keep_ended = 1000
[journal]
snapshot_every_records = 5000
segment_bytes = 4194304
"""


def graph() -> list[TaskSpec]:
    """A root, a fan of eight, a join; each result is a line of text."""

    def task(id: str, *after: str) -> TaskSpec:
        return TaskSpec(id=id, agent="python", input={"function": ECHO, "args": ["x" * 100]}, dependencies=after)

    fan = [f"b{number}" for number in range(8)]
    return [task("a"), *(task(name, "a") for name in fan), task("c", *fan)]


async def load(client: Client, number: int) -> None:
    """One graph after the other, for ever."""
    while True:
        reply = await client.submit(graph(), key=f"{number}-{time.time_ns()}")
        if time.time_ns() % 10 == 0:
            await client.cancel(reply.graph)
        await client.wait([reply.graph], timeout_s=600.0)
        await client.result(reply.tasks[0])


async def measure(directory: Path, minutes: float) -> list[dict[str, float]]:
    """The samples: `at` seconds, `rss_mib`, `descriptors`, `threads`, `disk_mib`, `memory_tasks`, `archived`, `stalls`."""
    daemon = DaemonProcess(directory, CONFIG)
    samples: list[dict[str, float]] = []
    try:
        await daemon.start()
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        async with contextlib.AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(daemon.client())
            clients = [await stack.enter_async_context(daemon.client()) for _ in range(OPEN_GRAPHS)]
            loads = [asyncio.create_task(load(client, number)) for number, client in enumerate(clients)]
            begun = time.monotonic()
            while time.monotonic() - begun < minutes * 60:
                await asyncio.sleep(SAMPLE_S)
                for failed in (task for task in loads if task.done()):
                    failed.result()
                samples.append(await sample(watcher, process, daemon.state, time.monotonic() - begun))
                if len(samples) % 12 == 0:
                    print({key: round(value, 1) for key, value in samples[-1].items()}, file=sys.stderr, flush=True)
            for task in loads:
                task.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        return samples
    finally:
        print(daemon.log_text()[-3000:], file=sys.stderr)
        daemon.close()


async def sample(client: Client, process: psutil.Process, state: Path, at: float) -> dict[str, float]:
    status = await client.status()
    journal = sum(path.stat().st_size for path in (state / "journal").iterdir())
    archive = sum(path.stat().st_size for path in state.glob("archive.db*"))
    return {
        "at": at,
        "rss_mib": process.memory_info().rss / 2**20,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "journal_mib": journal / 2**20,
        "archive_mib": archive / 2**20,
        "memory_tasks": sum(status.counts.values()),
        "archived": status.archived,
        "stalls": status.stalls,
    }


def slope_an_hour(samples: list[dict[str, float]], name: str) -> float:
    """By least squares."""
    middle = sum(sample["at"] for sample in samples) / len(samples)
    mean = sum(sample[name] for sample in samples) / len(samples)
    above = sum((sample["at"] - middle) * (sample[name] - mean) for sample in samples)
    below = sum((sample["at"] - middle) ** 2 for sample in samples)
    return above / below * 3600 if below else 0.0


def main() -> int:
    """Load, sample, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all samples")
    parser.add_argument("--minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        samples = asyncio.run(measure(Path(directory), arguments.minutes))
    settled = samples[len(samples) // 2 :]
    slopes = {name: slope_an_hour(settled, name) for name in settled[0] if name != "at"}
    flat = slopes["rss_mib"] <= LIMIT_MIB_AN_HOUR and slopes["descriptors"] <= LIMIT_DESCRIPTORS_AN_HOUR
    if arguments.json:
        print(json.dumps({"samples": samples, "slope_an_hour": slopes, "flat": flat}))
    else:
        for name, slope in slopes.items():
            print(f"{name:>14}: {settled[0][name]:>10.1f} to {settled[-1][name]:>10.1f}, {slope:+.1f} an hour")
        print("flat" if flat else "GROWS")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
