"""Rounds of kill -9 against real daemons under load, and the judgement of what is left: `python -m tests.support.crashes --help`.

Several daemons, each with its own state and its own client, take turns at the processors: a start waits for other processes most
of its time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from supervisord_agents.core.model import END_STATES, State, TaskSpec
from supervisord_agents.errors import SupervisorError
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import TaskView
from tests.support.daemon import DaemonProcess

ROUND_S = 0.4
WAIT_S = 120.0
"""Without one more task that ends, the work stands still."""
MOST_PENDING = 300
"""A client waits while so many have not ended: what is never run proves little, and would have to be waited for at the end."""
BATCH_ROUNDS = 120
"""After so many rounds all daemons are judged, and new ones begin."""
END_EVERY = 4
"""Every so many rounds the kill waits until a task has ended: on a slow machine none would, and what never runs proves little."""
MODULE = '''
import os

LARGE = "x" * 100_000

def mark(context, large=False):
    """One line for every completed run."""
    for name, dependency in context.dependencies.items():
        assert isinstance(dependency.output, int) or dependency.output == LARGE, (name, dependency)
    descriptor = os.open(os.path.join(context.workspace, "done.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{context.task_id}\\n".encode())
    os.close(descriptor)
    return LARGE if large else context.attempt

def flaky(context):
    if context.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return mark(context)
'''
CONFIG = """
[daemon]
orphan_grace_s = 10.0
[pools.standard]
min_workers = 2
max_workers = 2
[tasks]
backoff_s = 0.01
keep_ended = 30
[journal]
segment_bytes = 1048576
snapshot_every_records = 150
"""


@dataclass
class Summary:
    """What rounds came to. Everything from `lost` on is a fault of the supervisor."""

    rounds: int = 0
    seconds: float = 0.0
    graphs: int = 0
    acknowledged: int = 0
    succeeded: int = 0
    cancelled: int = 0
    resumed: int = 0
    """Attempts that ran on through the death of the daemon."""
    adopted: int = 0
    """Ends that a start found in the outboxes of killed workers."""
    requeued: int = 0
    torn_tails: int = 0
    lost: list[str] = field(default_factory=list)
    """Acknowledged and not there, or reported done and never run."""
    run_twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Ended in a state, or with a result, that it should not have."""
    refused: list[str] = field(default_factory=list)
    """Starts that were refused, and tracebacks in a log."""

    @property
    def faults(self) -> list[str]:
        return [*self.lost, *self.run_twice, *self.wrong, *self.refused]

    def add(self, other: Summary) -> None:
        """Sum up; the time is that of the longer one."""
        for one in fields(self):
            mine, others = getattr(self, one.name), getattr(other, one.name)
            setattr(self, one.name, max(mine, others) if one.name == "seconds" else mine + others)

    def text(self) -> str:
        """One line for each figure, and for each of the first faults."""
        lines = []
        for one in fields(self):
            value = getattr(self, one.name)
            lines.append(f"{one.name:13} {len(value) if isinstance(value, list) else round(value, 1)}")
        return "\n".join([*lines, *self.faults[:20]])


class Load:
    """A client that submits small graphs without pause, cancels some, and knows what was acknowledged."""

    def __init__(self, daemon: DaemonProcess, workspace: Path, name: str = "graph") -> None:
        self._daemon = daemon
        self._workspace = workspace
        self._name = name
        self.number = 0
        self.acknowledged: list[str] = []
        self.cancelled: set[str] = set()
        """Graphs whose cancellation was asked for; what was asked last may have been done without an answer."""

    def _graph(self) -> list[TaskSpec]:
        def task(id: str, *after: str, function: str = "mark", retries: int = 0, **kwargs: object) -> TaskSpec:
            return TaskSpec(
                id=id,
                agent="python",
                input={"function": f"marker:{function}", "kwargs": kwargs},
                workspace=str(self._workspace),
                dependencies=after,
                max_retries=retries,
            )

        large = self.number % 3 == 0
        tasks = [task("A", large=large), task("B", "A"), task("C", "A"), task("D", "B", "C")]
        return [*tasks, task("E", function="flaky", retries=3)] if self.number % 5 == 0 else tasks

    async def run(self, connected: asyncio.Event) -> None:
        """Until the daemon is gone. A submit whose answer was lost is sent again in the next round, with the same key."""
        async with self._daemon.client() as client:
            connected.set()
            while True:
                reply = await client.submit(self._graph(), key=f"{self._name}-{self.number}")
                self.number += 1
                self.acknowledged += reply.tasks
                if self.number % 7 == 0:
                    self.cancelled.add(reply.graph)
                    await client.cancel(reply.graph)
                await asyncio.sleep(0.02)
                while self.number % 5 == 0 and await _pending(client) > MOST_PENDING:
                    await asyncio.sleep(0.05)


class Crashes:
    """One daemon in a directory of its own, killed again and again."""

    def __init__(self, directory: Path, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.workspace = directory / "workspace"
        self.workspace.mkdir()
        (self.workspace / "marker.py").write_text(MODULE)
        self._dice = random.Random(seed)
        self._daemon = DaemonProcess(directory, CONFIG)
        self._load = Load(self._daemon, self.workspace)

    async def run(self, rounds: int) -> Summary:
        """So many lives and deaths, then one life in which everything may end; judged."""
        summary = Summary(rounds=rounds)
        began = time.monotonic()
        try:
            for number in range(rounds):
                await self._round(until_one_ends=number % END_EVERY == 0)
            await self._daemon.start()
            async with self._daemon.client() as client:
                views = await self._all_ended(client)
                self._judge_states(views, summary)
                await self._judge_results(client, views, summary)
        finally:
            self._daemon.close()
        self._judge_runs(views, summary)
        self._read_log(summary)
        summary.seconds = time.monotonic() - began
        return summary

    async def _round(self, *, until_one_ends: bool) -> None:
        daemon = self._daemon
        await daemon.start()
        connected = asyncio.Event()
        submitting = asyncio.create_task(self._load.run(connected))
        await connected.wait()
        if until_one_ends:
            async with daemon.client() as client:
                await _an_end(client)
        await asyncio.sleep(self._dice.uniform(0.0, ROUND_S))
        daemon.kill()
        try:
            await submitting
        except (SupervisorError, OSError):
            return

    async def _all_ended(self, client: Client) -> dict[str, TaskView]:
        assert self._load.acknowledged, "no submit was ever acknowledged"
        known = await all_ids(client)
        views: dict[str, TaskView] = {}
        for some in _in_parts([task for task in self._load.acknowledged if task in known], 200):
            pending = await _pending(client)
            while not (waited := await client.wait(some, mode="all", timeout_s=WAIT_S)).done:
                before, pending = pending, await _pending(client)
                assert pending < before, f"{pending} tasks have not ended, and none does"
            views |= {view.id: view for view in waited.tasks}
        assert (await client.status()).archived, "nothing was archived"
        return views

    def _judge_states(self, views: dict[str, TaskView], summary: Summary) -> None:
        load = self._load
        summary.graphs, summary.acknowledged = load.number, len(load.acknowledged)
        summary.lost += [f"{task}: acknowledged, and not there" for task in sorted(set(load.acknowledged) - set(views))]
        for view in views.values():
            if view.state is State.SUCCEEDED:
                summary.succeeded += 1
            elif view.state is State.CANCELLED and view.graph in load.cancelled:
                summary.cancelled += 1
            else:
                summary.wrong.append(f"{view.id}: {view.state}, {view.failure}")

    async def _judge_results(self, client: Client, views: dict[str, TaskView], summary: Summary) -> None:
        """What `result` says, and the file of a task that ran, agree with the state."""
        for view in views.values():
            result = (await client.result(view.id)).result
            told = [(result.status, result.attempt)]
            if view.attempt:
                written = json.loads((self._daemon.state / "results" / f"task_{view.id}.json").read_bytes())
                told.append((written["status"], written["attempt"]))
            if set(told) != {(view.state, view.attempt)}:
                summary.wrong.append(f"{view.id}: {view.state} at attempt {view.attempt}, but its result says {told}")
            if view.state is State.SUCCEEDED and (
                result.error is not None or not (result.output == view.attempt or len(result.output) == 100_000)
            ):
                summary.wrong.append(f"{view.id}: its output is lost: {result}")

    def _judge_runs(self, views: dict[str, TaskView], summary: Summary) -> None:
        runs = Counter((self.workspace / "done.log").read_text().split())
        done = {view.id for view in views.values() if view.state is State.SUCCEEDED}
        summary.lost += [f"{task}: reported done, and never run" for task in sorted(done - set(runs))]
        summary.run_twice += [f"{task}: run to completion {count} times" for task, count in runs.items() if count > 1]

    def _read_log(self, summary: Summary) -> None:
        log = self._daemon.log_text()
        for line in log.splitlines():
            if " recovered " in line:
                summary.resumed += int(_field("resumed", line))
                summary.adopted += int(_field("adopted", line))
                summary.requeued += int(_field("requeued", line))
                summary.torn_tails += _field("torn_bytes", line) != "0"
        if "Traceback" in log:
            summary.refused.append(f"a traceback in {self._daemon.log}")


def _field(name: str, line: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", line)
    assert found, line
    return found[1]


async def _pending(client: Client) -> int:
    counts = (await client.status()).counts
    return sum(count for state, count in counts.items() if State(state) not in END_STATES)


async def _an_end(client: Client) -> None:
    async with contextlib.aclosing(client.subscribe()) as items:
        async for item in items:
            if item.state is State.SUCCEEDED:
                return


async def all_ids(client: Client) -> set[str]:
    ids: set[str] = set()
    after = ""
    while True:
        page = await client.list(limit=1000, after=after)
        ids |= {view.id for view in page.tasks}
        after = page.next
        if not after:
            return ids


def _in_parts(items: list[str], size: int) -> Iterator[list[str]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))


async def crash(directory: Path, *, rounds: int, daemons: int, seed: int) -> Summary:
    """Share so many rounds among daemons that live and die at the same time; a daemon that will not start is a refusal."""
    shares = [rounds // daemons + (number < rounds % daemons) for number in range(daemons)]
    jobs = [Crashes(directory / f"daemon-{number}", seed + number).run(share) for number, share in enumerate(shares) if share]
    total = Summary()
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(outcome, Summary):
            total.add(outcome)
        elif isinstance(outcome, AssertionError | SupervisorError | OSError):
            total.refused.append(f"rounds ended early: {outcome!r}")
        else:
            raise outcome
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.support.crashes", description="Kill daemons under load and judge what is left.")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--daemons", type=int, default=3, help="that live at the same time")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    total = Summary()
    began = time.monotonic()
    while total.rounds < arguments.rounds and not total.faults:
        rounds = min(BATCH_ROUNDS, arguments.rounds - total.rounds)
        directory = Path(tempfile.mkdtemp(prefix="crashes-"))
        total.add(asyncio.run(crash(directory, rounds=rounds, daemons=arguments.daemons, seed=arguments.seed + total.rounds)))
        if total.faults:
            print(f"what they left lies in {directory}")
        else:
            shutil.rmtree(directory)
        total.seconds = time.monotonic() - began
        print(f"{arguments.daemons} daemons at a time, seed {arguments.seed}\n{total.text()}\n", flush=True)
    return 1 if total.faults else 0


if __name__ == "__main__":
    sys.exit(main())
