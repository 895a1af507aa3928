"""`python -m tests.simulation SEED`: the history of a seed. `python -m tests.simulation --soak`: new seeds until one is bad."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="tell its history")
    parser.add_argument("--seeds", metavar="FIRST:LAST", help="run these, the last one not included; tell the bad ones")
    parser.add_argument("--soak", action="store_true", help="run new seeds until one is bad")
    arguments = parser.parse_args()
    if arguments.soak:
        return soak(time.time_ns() // 1000)
    if arguments.seeds:
        first, last = map(int, arguments.seeds.split(":"))
        return run(range(first, last))
    if arguments.seed is None:
        parser.error("name a seed")
    outcome = simulate(arguments.seed, record=True)
    print("\n".join(outcome.history))
    print(
        f"\n{outcome.lives} lives of the daemon, {outcome.tasks} tasks, {outcome.operations} disk operations, "
        f"{outcome.steps} steps; history {outcome.digest[:16]}"
    )
    print(outcome if outcome.violation else f"seed {outcome.seed}: every promise was kept")
    return 1 if outcome.violation else 0


def run(seeds: range) -> int:
    began, bad = time.process_time(), 0
    for seed in seeds:
        outcome = simulate(seed)
        if outcome.violation:
            bad += 1
            print(outcome, flush=True)
    seconds = time.process_time() - began
    print(f"{len(seeds)} seeds in {seconds:.1f} s of one core, {60 * len(seeds) / seconds:.0f} a minute; {bad} bad")
    return 1 if bad else 0


def soak(seed: int) -> int:
    began, count = time.monotonic(), 0
    while True:
        outcome = simulate(seed)
        count += 1
        if outcome.violation:
            print(outcome, flush=True)
            return 1
        if count % 1000 == 0:
            print(f"{count} seeds, {60 * count / (time.monotonic() - began):.0f} a minute, the last {seed}", flush=True)
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
