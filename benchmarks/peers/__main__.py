"""Compare with the peers: `make bench-peers`, or

    python -m benchmarks.peers [--quick] [--rounds N] [--peers a,b] [--works a,b] [--output FILE]

Every round visits every peer in every setting, in another order, so that what changes on the machine meanwhile hits all alike.
The raw figures go to --output. A whole run also renews the table in benchmarks/RESULTS.md and the plot; --quick does not.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import catalog, plot, table
from benchmarks.peers.children import ROOT, adopt_orphans, descendants, kill, reap

VENVS = ROOT / "build" / "peers" / "venvs"
RUNS = ROOT / "build" / "peers" / "run"
RESULTS = Path(__file__).parent / "results"
LAST = RESULTS / "last.json"
ROUNDS = 2
VISIT_MUST_END_S = 600
MUST_END_S = 25 * 60
"""A further round is begun only if it would end before."""
HERE = (catalog.OURS, "sqlite_journal", "task_spooler", "gnu_parallel")
"""Peers that need no Python package, or ours: they run in the project's own environment."""


@dataclass
class Run:
    """What is found out; `as_json` is the file."""

    quick: bool
    rounds: int
    begun: float = field(default_factory=time.time)
    load: list[float] = field(default_factory=lambda: [round(os.getloadavg()[0], 2)])
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    cells: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)

    def take(self, module: str, setting: str, told: dict[str, Any]) -> None:
        name = f"{module}/{setting}"
        if "versions" in told:
            self.versions.setdefault(module, {}).update(told["versions"])
        elif "absent" in told or "broken" in told:
            self.skipped[name] = told.get("absent") or f"broken: {told['broken']}"
        else:
            sample = {key: value for key, value in told.items() if key != "work"}
            self.cells.setdefault(name, {}).setdefault(told["work"], []).append(sample)

    def as_json(self) -> dict[str, Any]:
        return {
            "date": datetime.datetime.fromtimestamp(self.begun, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": round(time.time() - self.begun),
            "quick": self.quick,
            "rounds": self.rounds,
            "machine": machine(),
            "commit": commit(),
            "load": self.load,
            "versions": self.versions,
            "skipped": self.skipped,
            "cells": self.cells,
        }

    def write(self, output: Path) -> None:
        output.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    kibibytes = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(kibibytes / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def interpreter(module: str) -> Path | None:
    """The Python that a peer's client runs in; None: it is not installed."""
    if module in HERE:
        return Path(sys.executable)
    python = VENVS / module / "bin" / "python"
    return python if python.exists() else None


def visit(module: str, setting: str, plan: list[str]) -> Iterator[dict[str, Any]]:
    """What the peer's host tells. A host that ends early, at a work that failed, is followed by another for the rest."""
    python = interpreter(module)
    if python is None:
        yield {"absent": "its virtual environment is not there: run .ci/setup peers"}
        return
    directory = RUNS / module
    left = plan
    while left:
        shutil.rmtree(directory, ignore_errors=True)
        told = [json.loads(line) for line in host(python, module, setting, directory, left)]
        yield from told
        if any("absent" in one or "broken" in one for one in told):
            return
        done = [one["work"] for one in told if "work" in one]
        if not done:
            yield {"work": left[0].partition("=")[0], "failed": "the client's process ended without a word"}
            done = left[:1]
        left = left[len(done) :]
    shutil.rmtree(directory, ignore_errors=True)


def host(python: Path, module: str, setting: str, directory: Path, plan: list[str]) -> list[str]:
    argv = [str(python), "-m", "benchmarks.peers.host", module, setting, str(directory), *plan]
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / f"{module}.log").open("ab") as log:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            told, _ = process.communicate(timeout=VISIT_MUST_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            told, _ = process.communicate()
        # The host may have left servers behind that became ours.
        finally:
            kill(descendants(os.getpid()))
            reap()
    return [line for line in told.splitlines() if line.startswith("{")]


def plans(works: list[catalog.Work], quick: bool, first_round: bool) -> list[list[str]]:
    """The works of one visit, in groups that share a start of the peer."""
    chosen = [work for work in works if first_round or not work.once]
    groups = [
        [work for work in chosen if not work.workers and not work.once],
        [work for work in chosen if work.workers and not work.once],
        *([work] for work in chosen if work.once),
    ]
    return [[f"{work.name}={work.quick if quick else work.count}" for work in group] for group in groups if group]


def measure(entries: list[catalog.PeerEntry], works: list[catalog.Work], run: Run, output: Path) -> None:
    """Visit all, and write what is known to `output` after each visit."""
    pairs = [(entry.module, setting.name) for entry in entries for setting in entry.settings]
    dice = random.Random(0)
    wanted, run.rounds = run.rounds, 0
    for number in range(wanted):
        # The first round, with all that is done once, is no shorter than any other.
        if run.rounds and (time.time() - run.begun) * (1 + 1 / run.rounds) > MUST_END_S:
            print(f"no time for round {number + 1} within {MUST_END_S / 60:g} minutes", flush=True)
            break
        order = pairs[:]
        dice.shuffle(order)
        for module, setting in order:
            if f"{module}/{setting}" in run.skipped:
                continue
            begin = time.monotonic()
            for plan in plans(works, run.quick, number == 0):
                for told in visit(module, setting, plan):
                    run.take(module, setting, told)
                if f"{module}/{setting}" in run.skipped:
                    print(f"SKIPPED {module}/{setting}: {run.skipped[f'{module}/{setting}']}", flush=True)
                    break
            print(f"round {number + 1}: {module}/{setting}: {time.monotonic() - begin:.0f} s", flush=True)
            run.write(output)
        run.rounds = number + 1
        run.load.append(round(os.getloadavg()[0], 2))
        run.write(output)


def chosen(text: str, known: tuple[Any, ...], name: str) -> list[Any]:
    wanted = text.split(",") if text else [getattr(one, name) for one in known]
    unknown = set(wanted) - {getattr(one, name) for one in known}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(getattr(one, name) for one in known)}")
    return [one for one in known if getattr(one, name) in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tasks of each kind: does it work?")
    parser.add_argument("--rounds", type=int, default=0, help=f"visits to each peer (default: {ROUNDS}, with --quick 1)")
    parser.add_argument("--peers", default="", help="only these, by comma")
    parser.add_argument("--works", default="", help="only these, by comma")
    parser.add_argument("--output", type=Path, help="where the raw figures go")
    parser.add_argument("--add", action="store_true", help="put what is measured in place of what the last whole run had")
    parser.add_argument("--publish", action="store_true", help="only make table and plot anew from the last whole run")
    arguments = parser.parse_args()
    whole = not (arguments.quick or arguments.peers or arguments.works)
    output = arguments.output or (LAST if whole or arguments.publish else RUNS.parent / "part.json")
    if not arguments.publish:
        adopt_orphans()
        # So that what was started is ended.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
        entries = chosen(arguments.peers, catalog.PEERS, "module")
        works = chosen(arguments.works, catalog.WORKS, "name")
        output.parent.mkdir(parents=True, exist_ok=True)
        measure(entries, works, Run(arguments.quick, arguments.rounds or (1 if arguments.quick else ROUNDS)), output)
    run = json.loads(output.read_text())
    if arguments.add:
        run = added(json.loads(LAST.read_text()), run)
        LAST.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    reasons = table.read_reasons()
    if arguments.publish or arguments.add or (whole and not arguments.output):
        plot.write(run, RESULTS / "peers.svg")
        table.publish(run, reasons, ROOT / "benchmarks" / "RESULTS.md")
    print(table.markdown(run, reasons))
    return 0


def added(last: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The last run with the cells of a later one, and a word of which."""
    for name, cells in part["cells"].items():
        last["cells"].setdefault(name, {}).update(cells)
    works = sorted({work for cells in part["cells"].values() for work in cells})
    note = f"{', '.join(works)} of {len(part['cells'])} rows at {part['date']} (commit {part['commit']})"
    last.setdefault("added", []).append(note)
    last["load"] = [*last["load"], *part["load"][-1:]]
    return last


if __name__ == "__main__":
    sys.exit(main())
