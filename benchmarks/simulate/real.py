"""The first two scenarios with a real daemon and sandboxed workers, and what the daemon takes of a processor meanwhile.

Scaled in time: a task sleeps for a second instead of working for half a minute, so that what supervision adds is thirty times as
large a part of it as it would be.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import msgspec
import psutil

from benchmarks.simulate.expectation import Expectation, told
from benchmarks.simulate.scenarios import TASK_S, chain_graph, fan_graph, most_at_once, span_s
from benchmarks.simulate.world import Run
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

SECONDS = 1.0
WORKERS = 4
MANY = 10
SHORT_S = 0.3
TASKS = 100
IDLE_S = 5.0
CONFIG = """
[pools.standard]
min_workers = {workers}
max_workers = {workers}
[daemon]
log_level = "warning"
"""


async def ran(client: Client, graph: Sequence[TaskSpec], seconds: float) -> list[Run]:
    """The graph, in order of the ends, times since the submit; a task without an input sleeps. Raises SystemExit if one fails."""
    sleep = {"argv": ["sleep", f"{seconds:g}"]}
    reply = await client.submit([msgspec.structs.replace(spec, input=spec.input or sleep, estimate_s=seconds) for spec in graph])
    waited = await client.wait([reply.graph], timeout_s=600.0)
    bad = [view.id for view in waited.tasks if view.state is not State.SUCCEEDED]
    if bad or not waited.done:
        raise SystemExit(f"did not succeed: {', '.join(bad)}")
    runs = []
    for view in waited.tasks:
        history = (await client.show(view.id)).history
        ready = next(moment["at"] for moment in history if moment["state"] == State.READY)
        times = [at - view.submitted_at for at in (ready, view.started_at, view.started_at, view.ended_at)]
        runs.append(Run(view.id.split(".")[1], view.pool, *times))
    return sorted(runs, key=lambda run: run.end)


async def warmed(client: Client, workers: int) -> None:
    """Until each worker has had a task."""
    await ran(client, [TaskSpec(pool="standard") for _ in range(2 * workers)], SHORT_S)


async def chain(client: Client) -> list[Expectation]:
    runs = await ran(client, chain_graph(), SECONDS)
    whole = span_s(runs)
    most = most_at_once(runs)
    added = _added_ms(runs)
    return [
        Expectation(f"time of the chain, in tasks of {SECONDS:g} s", "4.00 to 4.40 ×", f"{whole:.2f} ×", 4.0 <= whole < 4.4),
        Expectation("tasks at once", "1", str(most), most == 1),
        told("added to each by the supervisor and the sandbox", f"{added:.0f} ms"),
        told(f"the chain with tasks of {TASK_S:g} s and so much added", f"{4 + 4 * added / 1000 / TASK_S:.3f} ×"),
    ]


async def fan_out(client: Client) -> list[Expectation]:
    runs = [run for run in await ran(client, fan_graph(), SECONDS) if run.task.startswith("B")]
    speedup = 4 * SECONDS / span_s(runs)
    most = most_at_once(runs)
    added = _added_ms(runs)
    return [
        Expectation(
            f"B1 to B4 with {WORKERS} workers, against 4 × {SECONDS:g} s",
            "3.60 to 4.00 ×",
            f"{speedup:.2f} ×",
            3.6 <= speedup <= 4,
        ),
        Expectation("of them at once", "4", str(most), most == 4),
        told("added to each by the supervisor and the sandbox", f"{added:.0f} ms"),
        told(f"the speed-up with tasks of {TASK_S:g} s and so much added", f"{4 / (1 + added / 1000 / TASK_S):.3f} ×"),
    ]


def _added_ms(runs: Sequence[Run]) -> float:
    return 1000 * median(run.end - run.ready - SECONDS for run in runs)


async def processor(client: Client, process: psutil.Process) -> list[Expectation]:
    """Of the daemon alone: a hundred tasks one hundredth as long as those of the success table, then nothing for a while."""
    begun = _cpu_s(process)
    runs = await ran(client, [TaskSpec(pool="standard") for _ in range(TASKS)], SHORT_S)
    each = (_cpu_s(process) - begun) / TASKS
    begun = _cpu_s(process)
    await asyncio.sleep(IDLE_S)
    idle = (_cpu_s(process) - begun) / IDLE_S
    workers = most_at_once(runs)
    share = idle + each * workers / TASK_S
    return [
        told(
            f"{TASKS} tasks of {SHORT_S:g} s, {workers} workers", f"{span_s(runs):.2f} s, {1000 * each:.2f} ms of the daemon each"
        ),
        told("of a processor meanwhile", f"{100 * each * TASKS / span_s(runs):.1f} %"),
        told("with nothing to do", f"{100 * idle:.2f} %"),
        Expectation(f"so with tasks of {TASK_S:g} s", "< 5 %", f"{100 * share:.2f} %", share < 0.05),
    ]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def measured() -> AsyncIterator[tuple[str, list[Expectation]]]:
    """All of it, by title; each pool size with a daemon of its own."""
    with tempfile.TemporaryDirectory(prefix="simulate-real-") as base:
        async with _daemon(Path(base) / "four", WORKERS) as (client, _):
            yield "1. Chain, for real: sandboxed workers", await chain(client)
            yield "2. Fan-out, for real: sandboxed workers", await fan_out(client)
        async with _daemon(Path(base) / "ten", MANY) as (client, process):
            yield "The daemon's processor time", await processor(client, process)


@asynccontextmanager
async def _daemon(directory: Path, workers: int) -> AsyncIterator[tuple[Client, psutil.Process]]:
    """One whose workers are warm."""
    directory.mkdir()
    daemon = DaemonProcess(directory, CONFIG.format(workers=workers))
    try:
        await daemon.start()
        assert daemon.process is not None
        async with daemon.client() as client:
            await warmed(client, workers)
            yield client, psutil.Process(daemon.process.pid)
    finally:
        daemon.close()
