"""Fuzz the parsers that read what others send (targets.py): `python -m tests.fuzz [--runs N] [--minimise] [TARGET ...]`.

`--runs` executions are shared out among all targets. What each has had is kept in build/fuzz, so that a run that was stopped goes
on where it was; delete the directory to begin anew. `--minimise` writes the inputs that reach something of their own to
tests/fuzz/corpus, which the unit tests replay. An input that a parser fails on ends its target, and is shown: mend the parser,
and put the input into the corpus.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz import corpora

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
CHUNK = 100_000
"""Executions between two notes of how many there were."""
MAX_INPUT_BYTES = 512
TIMEOUT_S = 30
SHARES = {
    "framing": 3,
    "calls": 4,
    "answers": 1,
    "worker_frames": 4,
    "daemon_frames": 1,
    "sandbox_requests": 1,
    "authorities": 2,
    "entries": 1,
    "addresses": 2,
    "request_targets": 1,
    "answer_usage": 2,
    "usage_tails": 1,
    "redaction": 1,
    "questions": 2,
    "segments": 2,
    "segment_records": 2,
    "events": 2,
}
"""Of the executions: more where strangers send more."""


class Crash(Exception):
    """A parser failed; the text says on what."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(SHARES))
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions of all targets together")
    parser.add_argument("--minimise", action="store_true", help="rewrite tests/fuzz/corpus")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(SHARES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = False
    for target in arguments.targets or SHARES:
        try:
            _fuzz(target, arguments.runs * SHARES[target] // sum(SHARES.values()))
            if arguments.minimise:
                _minimise(target)
        except Crash as crash:
            print(crash, file=sys.stderr)
            failed = True
    print(f"{sum(map(_done, SHARES))} executions so far")
    return int(failed)


def _fuzz(target: str, runs: int) -> None:
    directory = BUILD / target
    corpora.unpack(corpora.read(target), directory / "corpus")
    while (done := _done(target)) < runs:
        chunk = min(CHUNK, runs - done)
        _libfuzzer(target, f"-runs={chunk}", f"-artifact_prefix={directory}/", str(directory / "corpus"))
        (directory / "done").write_text(str(done + chunk))
        print(f"{target}: {done + chunk} of {runs}, {len(os.listdir(directory / 'corpus'))} inputs kept", flush=True)


def _minimise(target: str) -> None:
    """Keep as few inputs as reach all that the many reach."""
    smallest = BUILD / target / "smallest"
    subprocess.run(["rm", "-rf", str(smallest)], check=True)
    smallest.mkdir(parents=True)
    _libfuzzer(target, "-merge=1", str(smallest), str(BUILD / target / "corpus"))
    if not (inputs := corpora.pack(smallest)):
        raise Crash(f"{target}: nothing is left of its inputs, which cannot be: tests/fuzz/corpus keeps what it has.")
    corpora.write(target, inputs)


def _libfuzzer(target: str, *arguments: str) -> None:
    limits = (f"-max_len={MAX_INPUT_BYTES}", f"-timeout={TIMEOUT_S}", "-rss_limit_mb=2048")
    argv = [sys.executable, "-m", "tests.fuzz.one", target, *limits, *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise Crash(f"{target} failed ({done.returncode}):\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def _done(target: str) -> int:
    path = BUILD / target / "done"
    return int(path.read_text()) if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
