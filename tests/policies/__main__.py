"""Take each policy of the core out, and see its test go red: `python -m tests.policies`; with words, only those named so.

Exit code 1 if a test is red with every policy in place, or green without its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence

import pytest

from tests.policies.removal import Removal
from tests.policies.removals import REMOVALS
from tests.support.mutation import applied


class Watcher:
    """What the failing tests of a run say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            lines = [line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.said.append(lines[0] if lines else "an error")


def red(tests: Sequence[str]) -> list[str]:
    """What the tests of these that fail say; raises SystemExit if they cannot be run."""
    watcher = Watcher()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[watcher])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"the tests cannot be run:\n{printed.getvalue()}")
    return watcher.said


def without(removal: Removal) -> list[str]:
    """What its test says without the policy."""
    with applied(removal.mutation):
        return red([removal.test])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only policies whose name has one of these")
    words = parser.parse_args().words
    chosen = [removal for removal in REMOVALS if not words or any(word in removal.name for word in words)]
    bad = red(sorted({removal.test for removal in chosen}))
    if bad:
        print(f"red with every policy in place: {bad[0]}")
        return 1
    survivors = 0
    print("| without | red | what it says |\n|---|---|---|")
    for removal in chosen:
        said = without(removal)
        survivors += not said
        test = removal.test.partition("::")[2].removeprefix("test_").replace("_", " ")
        print(
            f"| {removal.name} | {test} | {' '.join(said[0].split())[:100] if said else '**nothing: it is green**'} |", flush=True
        )
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
