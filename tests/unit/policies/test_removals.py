"""Without any one policy of the core a test goes red: seen here for some, by `python -m tests.policies` for all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.policies.removal import Removal
from tests.policies.removals import REMOVALS
from tests.support.daemon import ROOT
from tests.support.mutation import applied

SOME = ["ageing", "inheritance", "longest path first", "lanes", "jitter", "retries are"]
"""Words of names."""
NO_POLICY = set(
    "__init__ backlog events graph graphs invariants model nesting scheduler snapshot table task".split()  # noqa: SIM905
)
"""Modules of the core that keep and carry; every other decides something."""


def test_every_module_that_decides_something_is_broken_somewhere() -> None:
    modules = {path.stem for path in (ROOT / "supervisord_agents" / "core").glob("*.py")}
    broken = {removal.mutation.where.removeprefix("supervisord_agents.core.").partition(":")[0] for removal in REMOVALS}
    assert not modules - broken - NO_POLICY, (
        "add a line to tests/policies for what such a module decides, or name it in NO_POLICY"
    )


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.name)
def test_every_removal_finds_its_place_and_leaves_no_trace(removal: Removal) -> None:
    with applied(removal.mutation):
        pass
    with applied(removal.mutation):
        pass


def test_names_are_told_apart() -> None:
    assert len({removal.name for removal in REMOVALS}) == len(REMOVALS)


def test_without_a_policy_its_test_is_red() -> None:
    command = [sys.executable, "-m", "tests.policies", *SOME]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") >= len(SOME) + 2
    assert "**nothing" not in done.stdout
