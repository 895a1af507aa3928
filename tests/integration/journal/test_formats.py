"""Journals that earlier versions wrote are read, and hold what was put into them. tests/data/journal/README.md says which."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from supervisord_agents.core import invariants
from supervisord_agents.core.events import Changed
from supervisord_agents.core.model import State, Usage
from supervisord_agents.daemon.recovery import replay
from supervisord_agents.errors import JournalCorrupt
from supervisord_agents.journal import survey
from tests.support.daemon import ROOT
from tests.support.journal import open_journal

DATA = ROOT / "tests" / "data" / "journal"
READABLE = ["a5c276d", "4e7c875"]
NEVER_RELEASED = ["befc0e1"]


def copy(version: str, tmp_path: Path) -> Path:
    directory = tmp_path / "journal"
    shutil.copytree(DATA / version, directory)
    return directory


def test_every_journal_that_is_kept_is_read_or_known_not_to_be() -> None:
    kept = sorted(path.name for path in DATA.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert kept == sorted([*READABLE, *NEVER_RELEASED])
    for version in kept:
        assert f"`{version}`" in (DATA / "README.md").read_text()


@pytest.mark.parametrize("version", READABLE)
def test_an_old_journal_holds_what_was_put_into_it(tmp_path: Path, version: str) -> None:
    directory = copy(version, tmp_path)
    assert survey.verify(directory) == []
    assert survey.stats(directory).snapshot_sequence == 8
    journal, recovered = open_journal(directory)
    told: list[tuple[int, str, State]] = []

    def changed(sequence: int, change: Changed) -> None:
        told.append((sequence, change.task, change.after))

    replayed = replay(recovered, changed)
    scheduler = replayed.scheduler
    invariants.check(scheduler)
    assert (recovered.clean, recovered.snapshot_sequence, recovered.torn_bytes, replayed.records) == (True, 8, 0, 4)
    assert replayed.last_at == 113.0
    assert {task.id: (task.state, task.attempt, task.worker, task.client) for task in scheduler.tasks.values()} == {
        "first.a": (State.SUCCEEDED, 2, "w-2", "1000"),
        "first.b": (State.SUCCEEDED, 2, "w-4", "1000"),
        "first.c": (State.CANCELLED, 0, "", "1000"),
        "second.d": (State.READY, 0, "", "1001"),
        "second.e": (State.CANCELLED, 0, "", "1001"),
    }
    first, d, e = scheduler.tasks["first.a"], scheduler.tasks["second.d"], scheduler.tasks["second.e"]
    assert (first.usage, first.retries, first.submitted_at, first.ended_at) == (Usage(30, 15, 1.5), 1, 100.0, 107.0)
    assert (first.spec.input, first.timeout_s) == ({"argv": ["true"]}, 30.0)
    assert [(moment.at, moment.state) for moment in first.history][:3] == [
        (100.0, State.READY),
        (101.0, State.RUNNING),
        (102.0, State.BACKING_OFF),
    ]
    assert (d.dependency_ids, d.deadline_at, scheduler.next_due()) == (["first.b"], 608.0, 608.0)
    assert e.failure is not None
    assert e.failure.message == "enough"
    assert scheduler.graph_of_key("the key") == "first"
    assert replayed.finished["first.b"].output == "done"
    assert told == [
        (9, "first.b", State.READY),
        (10, "first.b", State.RUNNING),
        (11, "first.b", State.SUCCEEDED),
        (11, "second.d", State.READY),
        (12, "second.e", State.CANCELLED),
    ]
    # And the journal goes on from there.
    assert journal.append(b"next") == 14
    journal.close()
    journal, recovered = open_journal(directory)
    assert recovered.records[-1] == (14, b"next")
    journal.close()


@pytest.mark.parametrize("version", NEVER_RELEASED)
def test_a_layout_that_was_never_released_is_refused_and_left_alone(tmp_path: Path, version: str) -> None:
    directory = copy(version, tmp_path)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(JournalCorrupt, match="agentctl journal repair"):
        open_journal(directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"} == before
