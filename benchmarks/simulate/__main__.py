"""The scheduler's promises about time, on the real core with simulated workers: `make simulate`.

python -m benchmarks.simulate                 # scenarios, success table, makespans; exit code 1 if an expectation is not held
python -m benchmarks.simulate --real          # the first two scenarios, and the daemon's processor time, with sandboxed workers
python -m benchmarks.simulate --plot          # draw results/makespan.svg anew
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.simulate import makespan, plot, real, scenarios
from benchmarks.simulate.expectation import Expectation, show

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="with a real daemon and sandboxed workers")
    parser.add_argument("--plot", action="store_true", help="write results/makespan.svg")
    arguments = parser.parse_args()
    held = asyncio.run(_really()) if arguments.real else [show(*table) for table in _simulated(arguments.plot)]
    print("All expectations are held." if all(held) else "NOT all expectations are held.")
    return 0 if all(held) else 1


async def _really() -> list[bool]:
    return [show(*table) async for table in real.measured()]


def _simulated(draw: bool) -> Iterator[tuple[str, list[Expectation]]]:
    for title, scenario in scenarios.SCENARIOS.items():
        yield title, scenario()
    made = list(makespan.all_made())
    yield "Makespan over the bound max(critical path, work / workers), median", makespan.compared(made)
    if draw:
        plot.write(made, RESULTS / "makespan.svg")


if __name__ == "__main__":
    sys.exit(main())
