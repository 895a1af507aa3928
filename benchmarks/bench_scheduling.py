"""What scheduling costs, without any I/O: microseconds a task, and bytes a queued task.

A task's way is check + submit + starts + start + finish, in graphs of ten (a root, a fan of four, a chain of four, a join). All
graphs are submitted first, so that the heaps are as large as they get; then everything is run, by eight slots. Specifications
come out of decoded journal records, as they do in the daemon, and the clock goes forward with every event.

Time is CPU time of this process, so that what else the machine does counts less. The garbage collector is measured both ways: as
Python starts, and with `gc.set_threshold(20000, 20, 20)`, which suits a process that mostly keeps what it makes; the budget is
for the second.

    python benchmarks/bench_scheduling.py [--json] [--sizes 1000,100000,1000000]
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supervisord_agents.core.events import AnyEvent, Finished, Started, Submitted, decode_event, encode_event
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.core.scheduler import Scheduler

SIZES = (1_000, 100_000, 1_000_000)
GRAPH_TASKS = 10
SLOTS = 8
MEMORY_TASKS = 100_000
GC_THRESHOLD = (20_000, 20, 20)
BUDGET_US = 15.0
BUDGET_BYTES = 1024

_DEPENDENCIES: tuple[tuple[str, ...], ...] = (
    (),
    *[("t1",)] * 4,
    *[(f"t{number}",) for number in range(5, 9)],
    ("t2", "t3", "t4", "t9"),
)


def specs() -> tuple[TaskSpec, ...]:
    """A graph of ten tasks with what a short command needs."""
    return tuple(
        TaskSpec(
            id=f"t{number}",
            input={"argv": ["true", str(number)]},
            dependencies=dependencies,
            timeout_s=600.0,
            backoff_s=1.0,
            pool="command",
        )
        for number, dependencies in enumerate(_DEPENDENCIES, start=1)
    )


def decoded(count: int) -> Iterator[AnyEvent]:
    """The submissions of `count` tasks, each decoded from bytes of its own."""
    graph = specs()
    for number in range(count // GRAPH_TASKS):
        yield decode_event(encode_event(Submitted(graph=f"g{number:07d}", specs=graph), 0.0))[1]


def cost_us(count: int) -> dict[str, float]:
    """Microseconds a task at `count` tasks: in all, and by the two halves. Making the events is not counted."""
    scheduler = Scheduler()
    submit_s = 0.0
    clock = time.process_time
    for event in decoded(count):
        begun = clock()
        scheduler.check(event, 1.0)
        scheduler.handle(event, 1.0)
        submit_s += clock() - begun
    now = 1.0
    begun = clock()
    while offers := scheduler.starts({"command": SLOTS}):
        for offer in offers:
            now += 0.001
            scheduler.handle(Started(task=offer.task, attempt=offer.attempt, worker="w"), now)
        for offer in offers:
            now += 0.001
            scheduler.handle(Finished(task=offer.task, attempt=offer.attempt), now)
        scheduler.next_due()
    run_s = clock() - begun
    if scheduler.counts[State.SUCCEEDED] != count:
        raise SystemExit(f"only {scheduler.counts[State.SUCCEEDED]} of {count} tasks succeeded")
    return {"submit": submit_s / count * 1e6, "run": run_s / count * 1e6, "total": (submit_s + run_s) / count * 1e6}


def queued_bytes(count: int) -> float:
    """Bytes a queued task with its specification, by tracemalloc."""
    scheduler = Scheduler()
    gc.collect()
    tracemalloc.start()
    for event in decoded(count):
        scheduler.handle(event, 1.0)
        del event
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / count


def main() -> int:
    """Measure and print; exit 0 if the budgets hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of tasks, multiples of ten")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    default = gc.get_threshold()
    for size in map(int, arguments.sizes.split(",")):
        gc.set_threshold(*default)
        untuned = cost_us(size)["total"]
        gc.collect()
        gc.set_threshold(*GC_THRESHOLD)
        cost = figures[str(size)] = {**cost_us(size), "default_gc": untuned}
        gc.collect()
        if not arguments.json:
            parts = f"submit {cost['submit']:.2f}, run {cost['run']:.2f}; with the default collector {untuned:.2f}"
            print(f"{size:>9,} tasks: {cost['total']:6.2f} µs a task ({parts})", flush=True)
    memory = queued_bytes(MEMORY_TASKS)
    held = memory <= BUDGET_BYTES and all(cost["total"] <= BUDGET_US for cost in figures.values())
    if arguments.json:
        print(json.dumps({"us_per_task": figures, "bytes_per_queued_task": memory, "within_budget": held}))
    else:
        print(f"{MEMORY_TASKS:>9,} queued: {memory:6.0f} bytes a task")
        print(f"budget: {BUDGET_US:g} µs, {BUDGET_BYTES} bytes: {'held' if held else 'MISSED'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
