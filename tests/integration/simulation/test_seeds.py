"""The simulated supervisor keeps its promises, seed by seed; and it is seen that the simulation notices when it does not.

`SIMULATION_SEEDS=FIRST:LAST` runs other seeds; `make soak` runs new ones without end.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

import pytest

from tests.simulation.__main__ import soak
from tests.simulation.mutations import MUTATIONS, killed
from tests.simulation.run import first_bad, simulate
from tests.support.daemon import ROOT
from tests.support.mutation import Mutation, applied

FIRST, LAST = map(int, os.environ.get("SIMULATION_SEEDS", "0:2000").split(":"))
CHUNK = 50
CHEAP = {mutation.name: mutation for mutation in MUTATIONS}
SOON_RED = [
    "acknowledged before the fdatasync",
    "no fdatasync",
    "a failed fdatasync is tried again",
    "the directory of a new segment is not synced",
    "a snapshot is not synced before it has its name",
    "replay leaves out the last record",
    "keys are not restored",
    "a list tells what is not on disk",
    "what finished unseen is not adopted, and runs again",
]


@pytest.fixture(scope="module")
def processors() -> Iterator[ProcessPoolExecutor]:
    """All of them: a history is nothing but computation. New interpreters, for nothing of this one is to be in it."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.timeout(600)
def test_every_promise_is_kept(processors: ProcessPoolExecutor) -> None:
    chunks = [range(first, min(first + CHUNK, LAST)) for first in range(FIRST, LAST, CHUNK)]
    bad = [str(one) for one in processors.map(first_bad, chunks) if one is not None]
    assert not bad, "\n".join(bad)


def test_broken_code_is_seen(processors: ProcessPoolExecutor) -> None:
    seen = processors.map(killed, [CHEAP[name] for name in SOON_RED], repeat(range(100)))
    unseen = [name for name, bad in zip(SOON_RED, seen, strict=True) if bad is None]
    assert not unseen, "nothing in 100 seeds sees it"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_still_finds_its_place(mutation: Mutation) -> None:
    with applied(mutation):
        pass


SEEN = {
    "the power went": r"loses power",
    "the daemon was killed": r"is killed",
    "it ended by itself": r"has ended: ",
    "it left its workers to the next": r"by SIGUSR1",
    "a worker was taken over": r"is found with .*told=True",
    "one that had not begun": r"is found with .*told=False",
    "an end was found in an outbox": r"adopted=[1-9]",
    "an attempt was lost": r"requeued=[1-9]",
    "a torn tail was cut": r"torn_bytes=[1-9]",
    "a snapshot was written": r"snapshot_written",
    "a snapshot failed": r"snapshot_failed",
    "a submit was refused for space": r"refused: no room",
    "space came back": r"space_again",
    "there was no room to start": r"no room to start",
    "a result waited for the disk": r"result_not_written",
    "a sync failed": r"Input/output error",
    "a submit was made twice": r"a duplicate",
    "an answer was lost": r"no answer",
    "a result was large": r"will large",
    "an attempt took too long": r"code=TIMEOUT",
    "a deadline passed": r"code=DEADLINE",
    "tasks were cancelled": r"has cancelled \['",
    "tasks were given another round": r"has revived \['",
}


def test_the_histories_are_full_of_accidents() -> None:
    """A promise that nothing puts to the test is kept easily."""
    unseen = dict(SEEN)
    for seed in range(200):
        told = "\n".join(simulate(seed, record=True).history)
        unseen = {what: pattern for what, pattern in unseen.items() if not re.search(pattern, told)}
        if not unseen:
            return
    assert not unseen


def test_one_seed_is_one_history() -> None:
    """In any process, whatever the hashes of texts and the addresses of objects."""

    def told(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation", "3"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    assert told("1") == told("2")
    assert "every promise was kept" in told("1")


def test_a_bad_seed_is_named_with_the_command_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    with applied(CHEAP["keys are not restored"]):
        assert soak(0) == 1
        said = capsys.readouterr().out
        seed = int(said.split()[1].rstrip(":"))
        assert f"python -m tests.simulation {seed}" in said
        again = simulate(seed, record=True)
    assert again.violation in said
    assert any(line.endswith(again.violation) and "VIOLATION" in line for line in again.history)
