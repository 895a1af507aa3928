"""A million pending tasks with dependencies in a real daemon: time, size, and above all the longest pause of its loop.

A layered random graph: ten families of layers; each task depends on up to three of the layer before, the first layer on a task
that runs for ever, so that all stay pending.

Pauses are those that the daemon's own stall watch measured (observe/stalls.py), asked for after each phase; one may be up to
10 ms longer than what it is seen as. `pause_cpu_ms` is the most that the loop computed between two
beats: on a busy machine the pauses are also those of waiting for a processor.

    submit      all, 1,000 a graph
    list        pages: the first, through a filter that matches nothing near, from the middle, of one graph
    replay      kill -9, and a start from records alone
    snapshot    while single tasks are submitted; their latency beside that of the same without a snapshot, in turns
    restore     kill -9, and a start from that snapshot
    cancel      a subtree of a tenth
    retry       of that subtree's root
    records     apart from all that: a journal of so many records (submitted, started, finished), opened and replayed

    python benchmarks/bench_million.py [--json] [-n 1000000] [--records 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from supervisord_agents.core.events import Finished, Started, Submitted, encode_event
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.daemon import app, recovery
from supervisord_agents.daemon.upkeep import Upkeep
from supervisord_agents.journal.journal import Journal
from supervisord_agents.observe.stalls import StallWatch
from supervisord_agents.rpc.client import Client
from tests.support import daemon as support
from tests.support.daemon import DaemonProcess

FAMILIES = 10
LAYER = 1_000
BUDGET_PAUSE_MS = 50.0
BUDGET_BYTES = 1024
BUDGET_RECORDS_S = 5.0
PAUSES = "BENCH_PAUSES"
BLOCKER = TaskSpec(id="blocker", input={"argv": ["sleep", "36000"]}, timeout_s=36000.0, pool="parked")
CONFIG = """
[daemon]
log_level = "warning"
stall_s = 0.02
max_pending_tasks = 3000000
[tasks]
keep_ended = 3000000
[journal]
snapshot_every_records = 1000000000
[pools.standard]
min_workers = 0
max_workers = 1
[pools.parked]
min_workers = 0
max_workers = 1
"""


class WatchedDaemon(DaemonProcess):
    """A daemon that tells its pauses since the last time (SIGUSR1) and writes a snapshot when told to (SIGUSR2)."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, CONFIG)
        self.pauses = directory / "pauses.json"
        self.environment |= {PAUSES: str(self.pauses), "PYTHONPATH": str(support.ROOT)}

    def spawn(self) -> None:
        argv = [sys.executable, __file__, "--socket", str(self.socket), "--state-dir", str(self.state)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)

    async def pauses_ms(self) -> dict[str, float]:
        """The longest since the last call, and the most that the loop computed between two beats."""
        assert self.process is not None
        self.pauses.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        while not self.pauses.exists():
            self.assert_alive()
            await asyncio.sleep(0.01)
        pause, cpu = json.loads(self.pauses.read_text())
        return {"pause_ms": pause * 1e3, "pause_cpu_ms": cpu * 1e3}

    def rss(self) -> int:
        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss

    async def snapshot(self) -> float:
        """Write one; gives the seconds it took."""
        assert self.process is not None
        begun, done = time.perf_counter(), self.pauses.with_suffix(".snapshot")
        done.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        while not done.exists():
            self.assert_alive()
            await asyncio.sleep(0.01)
        return time.perf_counter() - begun


def run_daemon() -> int:
    """The daemon with two signals more."""
    target = Path(os.environ[PAUSES])
    start, run = StallWatch.start, Upkeep.run

    def tell(text: str, path: Path) -> None:
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    def started(self: StallWatch) -> None:
        start(self)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: tell(json.dumps(self.forget_longest()), target))

    async def running(self: Upkeep) -> None:
        async def snapshot() -> None:
            await self._try_snapshot()
            tell(self._snapshot_note, target.with_suffix(".snapshot"))

        loop = asyncio.get_running_loop()
        tasks = []
        loop.add_signal_handler(signal.SIGUSR2, lambda: tasks.append(loop.create_task(snapshot())))
        await run(self)

    StallWatch.start, Upkeep.run = started, running  # type: ignore[method-assign]
    return app.main()


async def submit_all(client: Client, held: str, count: int) -> tuple[list[str], str]:
    """Submit the layered graph; gives the root of each family, and the last layer."""
    chance = random.Random(3)
    roots = [
        (await client.submit([TaskSpec(id="root", input={"argv": ["true"]}, dependencies=(held,))])).tasks[0]
        for _ in range(FAMILIES)
    ]
    before = [[root] for root in roots]
    for number in range(count // LAYER):
        family = number % FAMILIES
        specs = [
            TaskSpec(
                id=f"t{place}",
                input={"argv": ["true", str(place)]},
                dependencies=tuple(set(chance.choices(before[family], k=chance.randint(1, 3)))),
            )
            for place in range(LAYER)
        ]
        before[family] = (await client.submit(specs)).tasks
    return roots, before[0][0].split(".")[0]


async def latencies_ms(client: Client, held: str, until: asyncio.Task[float] | float) -> list[float]:
    """Of single submits, one at a time, for so many seconds or until the task is done."""
    found = []
    end = time.perf_counter() + until if isinstance(until, float) else 0.0
    while not until.done() if isinstance(until, asyncio.Task) else time.perf_counter() < end:
        begun = time.perf_counter()
        await client.submit([TaskSpec(input={"argv": ["true"]}, dependencies=(held,))])
        found.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(0.002)
    return found


async def list_pages(client: Client, some_graph: str) -> None:
    first = await client.list(limit=1000)
    for after in (first.next, (await client.list(graph=some_graph, limit=2)).tasks[1].id):
        await client.list(limit=1000, after=after)
    await client.list(states=[State.RUNNING, State.SUCCEEDED], limit=1000)
    await client.list(states=[State.FAILED], limit=100)
    await client.list(graph=some_graph, limit=1000)


async def measure(  # noqa: PLR0915 — one phase after the other
    directory: Path, count: int
) -> dict[str, dict[str, float]]:
    """For each phase `s` (seconds), `pause_ms`, `rss_mib`, and what else it has."""
    support.START_TIMEOUT_S = 600.0
    daemon = WatchedDaemon(directory)
    figures: dict[str, dict[str, float]] = {}

    async def phase(name: str, begun: float, **more: float) -> None:
        seconds = time.perf_counter() - begun
        figures[name] = {"s": seconds, **await daemon.pauses_ms(), "rss_mib": daemon.rss() / 2**20, **more}
        print(name, {key: round(value, 2) for key, value in figures[name].items()}, file=sys.stderr, flush=True)

    try:
        await daemon.start()
        empty = daemon.rss()
        async with daemon.client() as client:
            held = (await client.submit([BLOCKER])).tasks[0]
            await daemon.pauses_ms()
            begun = time.perf_counter()
            roots, last = await submit_all(client, held, count)
            await phase("submit", begun, bytes_a_task=(daemon.rss() - empty) / count)
            begun = time.perf_counter()
            await list_pages(client, last)
            await phase("list", begun)
        daemon.kill()
        begun = time.perf_counter()
        await daemon.start()
        async with daemon.client() as client:
            recovered = (await client.status()).recovery
            await phase("replay", begun, recovery_s=recovered.seconds, records=recovered.records)
            without = await latencies_ms(client, held, 3.0)
            await daemon.pauses_ms()
            begun = time.perf_counter()
            writing = asyncio.create_task(daemon.snapshot())
            during = await latencies_ms(client, held, writing)
            await phase(
                "snapshot", begun, **spread("with", during), **spread("without", without + await latencies_ms(client, held, 3.0))
            )
        daemon.kill()
        begun = time.perf_counter()
        await daemon.start()
        async with daemon.client() as client:
            recovered = (await client.status()).recovery
            await phase("restore", begun, recovery_s=recovered.seconds, records=recovered.records)
            begun = time.perf_counter()
            reply = await client.cancel(roots[0])
            await phase("cancel", begun, tasks=reply.count)
            begun = time.perf_counter()
            await list_pages(client, last)
            await phase("list again", begun)
            begun = time.perf_counter()
            await client.retry(roots[0])
            await phase("retry", begun)
        return figures
    finally:
        print(daemon.log_text()[-6000:], file=sys.stderr)
        daemon.close()


def spread(name: str, times: list[float]) -> dict[str, float]:
    parts = statistics.quantiles(times, n=100)
    return {f"{name}_p50_ms": parts[49], f"{name}_p99_ms": parts[98], f"{name}_max_ms": max(times), f"{name}_n": len(times)}


def replay_records(directory: Path, count: int) -> dict[str, float]:
    """A journal of that many records, opened and replayed in a process of its own."""
    journal, _ = Journal.open(directory / "journal", segment_bytes=64 << 20, reserve_bytes=1 << 20, max_record_bytes=1 << 26)
    spec = TaskSpec(id="t1", input={"argv": ["true", "1"]}, timeout_s=600.0, backoff_s=1.0, pool="standard")
    for number in range(count // 3):
        graph, now = f"g{number:07d}", 1000.0 + number
        for event in (
            Submitted(graph=graph, specs=(spec,), client="0"),
            Started(task=f"{graph}.t1", attempt=1, worker=f"w-{number}"),
            Finished(task=f"{graph}.t1", attempt=1, output={"text": "done"}),
        ):
            journal.append(encode_event(event, now))
        if number % 10_000 == 0:
            journal.flush()
    journal.close()
    done = subprocess.run(
        [sys.executable, __file__, "--replay", str(directory / "journal")], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def replay(directory: Path) -> int:
    """Open and replay as a start does; print seconds of each."""
    import gc

    from supervisord_agents.daemon.feed import Feed

    gc.set_threshold(*app.COLLECT_RARELY)
    wall, cpu = time.perf_counter(), time.process_time()
    journal, recovered = Journal.open(directory, segment_bytes=64 << 20, reserve_bytes=1 << 20, max_record_bytes=1 << 26)
    opened = time.process_time() - cpu
    replayed = recovery.replay(recovered, Feed(0).changed)
    figures = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "of_it_open_cpu_s": opened}
    print(json.dumps({**figures, "records": replayed.records, "rss_mib": psutil.Process().memory_info().rss / 2**20}))
    journal.close()
    return 0


def main() -> int:
    """Measure and print; exit 0 if the budgets hold."""
    if PAUSES in os.environ:
        return run_daemon()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-n", type=int, default=1_000_000, help="tasks")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--replay", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        if arguments.n:
            figures |= asyncio.run(measure(Path(directory), arguments.n))
    with tempfile.TemporaryDirectory() as directory:
        if arguments.records:
            figures["records"] = replay_records(Path(directory), arguments.records)
    held = _held(figures)
    if arguments.json:
        print(json.dumps({"figures": figures, "within_budget": held}))
    else:
        for name, values in figures.items():
            print(f"{name:>10}: " + ", ".join(f"{key} {value:,.2f}" for key, value in values.items()))
        print(f"budget: pause {BUDGET_PAUSE_MS:g} ms, {BUDGET_BYTES} bytes, records {BUDGET_RECORDS_S:g} s")
        print("held" if held else "MISSED")
    return 0 if held else 1


def _held(figures: dict[str, dict[str, float]]) -> bool:
    """Pauses while serving; a start that replays is not serving yet."""
    pauses = [values["pause_ms"] for values in figures.values() if "pause_ms" in values]
    size = figures.get("submit", {}).get("bytes_a_task", 0.0)
    return (
        all(pause <= BUDGET_PAUSE_MS for pause in pauses)
        and size <= BUDGET_BYTES
        and figures.get("records", {}).get("s", 0.0) <= BUDGET_RECORDS_S
    )


if __name__ == "__main__":
    sys.exit(main())
