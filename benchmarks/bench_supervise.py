"""What supervision costs: work in a sandbox without it and with each group, in turns of one run, in milliseconds.

spawn      /bin/true, from the request to the known exit
git, node, python    a start of each, with the files that it opens
open       one open and close of a file, in microseconds, over 2,000
refused    one ptrace, which the filter refuses, in microseconds, over 2,000
plain      one getppid, which no group is shown, in microseconds, over 200,000

python benchmarks/bench_supervise.py [--json] [-n 15]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sandbox.notify_calls import GROUPS, Group
from sandbox.notify_events import Follower
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/worker", "LANG": "C.UTF-8"}
COMMANDS = {
    "spawn": ("true",),
    "git": ("git", "init", "-q", "/tmp/repository"),
    "node": ("node", "-e", "require('http')"),
    "python": ("python3", "-I", "-c", "import asyncio, json, urllib.request"),
}
TIMED = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
def of(work, times):
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times * 1e6
calls = {
    "open": (lambda: os.close(os.open("/etc/os-release", os.O_RDONLY)), 2000),
    "refused": (lambda: libc.ptrace(0, 0, 0, 0), 2000),
    "plain": (os.getppid, 200_000),
}
print(*(of(*calls[name]) for name in ("open", "refused", "plain")))
"""
CALLS = ("open", "refused", "plain")


async def run(spawner: Spawner, group: Group, argv: tuple[str, ...], output: int = -1) -> float:
    """Seconds from the request to the exit."""
    begin = time.perf_counter()
    spec = SandboxSpec(argv=argv, env=ENVIRONMENT, supervise=group, init=True)
    sandbox = await spawner.spawn(spec, {1: output} if output >= 0 else {})
    follower = Follower(sandbox.events, lambda event: None) if sandbox.events else None
    exit = await sandbox.wait()
    took = time.perf_counter() - begin
    if follower is not None:
        await follower.drained(5.0)
    if exit.code != 0:
        raise SystemExit(f"{' '.join(argv)[:60]} ended with {exit.code} under {group}")
    return took


async def calls(spawner: Spawner, group: Group) -> dict[str, float]:
    """Microseconds a call."""
    reader, writer = os.pipe()
    await run(spawner, group, ("python3", "-I", "-S", "-c", TIMED), writer)
    printed = os.read(reader, 4096)
    os.close(writer)
    os.close(reader)
    return dict(zip(CALLS, map(float, printed.split()), strict=True))


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """The median of each row for each group."""
    spawner = Spawner.start(cgroup_name=f"bench-supervise-{os.getpid()}")
    commands = {name: argv for name, argv in COMMANDS.items() if shutil.which(argv[0], path=ENVIRONMENT["PATH"])}
    taken: dict[str, dict[str, list[float]]] = {row: {group: [] for group in GROUPS} for row in (*commands, *CALLS)}
    for turn in range(rounds + 1):
        for group in GROUPS:
            found = {name: 1000 * await run(spawner, group, argv) for name, argv in commands.items()}
            found |= await calls(spawner, group)
            if turn:  # the first is to warm up
                for row, value in found.items():
                    taken[row][group].append(value)
    await spawner.aclose()
    return {row: {group: statistics.median(values) for group, values in columns.items()} for row, columns in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-n", type=int, default=15, help="rounds")
    options = parser.parse_args()
    found = asyncio.run(measure(options.n))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':10}" + "".join(f"{group:>12}" for group in GROUPS) + "      of off")
    for row, columns in found.items():
        ratios = "  ".join(f"{columns[group] / columns['off']:.2f}" for group in GROUPS[1:])
        unit = "us" if row in CALLS else "ms"
        print(f"{row:10}" + "".join(f"{columns[group]:>9.2f} {unit}" for group in GROUPS) + f"   {ratios}")


if __name__ == "__main__":
    main()
