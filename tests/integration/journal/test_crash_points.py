"""A crash between every two file operations: what was flushed before is there, and nothing that was never appended."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.journal.journal import Journal
from tests.support.journal import Crash, ForgetfulFiles, StepFiles, open_journal, payloads


class Workload:
    """Runs the journal through starts, rotations, snapshots and orderly ends, and knows what it was promised."""

    def __init__(self, directory: Path, files: StepFiles) -> None:
        self._directory = directory
        self._files = files
        self._journal: Journal | None = None
        self.appended: list[bytes] = []
        self.flushed = 0

    def run(self) -> None:
        """Until the end, or until Crash."""
        self._start()
        for size in (10, 1300, 1300, 1300, 50, 6000, 20):
            self._append(size)
        self._snapshot()
        self._append(1300, 2000, 30, 30, 30, 2500, 1300)
        self._append(1300)
        self._append(700, 700, 700, 700)
        self._end()
        self._start()
        self._append(2000)
        self._append(2000)
        self._snapshot()
        self._append(40)
        self._snapshot()
        self._end()

    def abandon(self) -> None:
        """What the kernel does for a process that is gone."""
        self._files.fail = None
        if self._journal is not None:
            self._journal.close(clean=False)

    def _start(self) -> None:
        self._journal, recovered = open_journal(self._directory, files=self._files)
        assert self._replayed(recovered.snapshot, payloads(recovered)) == self.appended

    def _append(self, *sizes: int) -> None:
        """One batch of records."""
        assert self._journal is not None
        for size in sizes:
            record = b"%d:" % len(self.appended) + bytes([65 + len(self.appended)]) * size
            self.appended.append(record)
            self._journal.append(record)
        self._journal.flush()
        self.flushed = len(self.appended)
        self._journal.prepare()

    def _snapshot(self) -> None:
        assert self._journal is not None
        self._journal.write_snapshot(b"|".join(self.appended), self._journal.durable)

    def _end(self) -> None:
        assert self._journal is not None
        self._journal.close()

    @staticmethod
    def _replayed(snapshot: bytes | None, records: list[bytes]) -> list[bytes]:
        return (snapshot.split(b"|") if snapshot else []) + records

    def check(self, directory: Path) -> None:
        """Open what is left, twice, with a record written between."""
        journal, recovered = open_journal(directory)
        found = self._replayed(recovered.snapshot, payloads(recovered))
        assert self.flushed <= len(found)
        assert found == self.appended[: len(found)]
        journal.append(b"after the crash")
        journal.close()
        journal, recovered = open_journal(directory)
        assert self._replayed(recovered.snapshot, payloads(recovered)) == [*found, b"after the crash"]
        assert recovered.clean
        journal.close()


def steps(memory_path: Path) -> list[str]:
    files = StepFiles()
    Workload(memory_path / "whole", files).run()
    return files.calls


def workspace() -> TemporaryDirectory[str]:
    """In memory where there is one: the loss of power comes from a model."""
    shared = Path("/dev/shm")
    return TemporaryDirectory(prefix="journal-", dir=shared if shared.is_dir() else None)


def crash_at(number: int) -> Callable[[int, str], BaseException | None]:
    """Crash from that call on: nothing the dying process does afterwards reaches the disk."""
    return lambda call, name: Crash(f"at call {call}, {name}") if call >= number else None


def test_a_process_that_ends_at_any_step_loses_nothing_flushed(memory_path: Path) -> None:
    calls = steps(memory_path)
    assert {"create", "allocate", "write", "sync", "sync_data", "rename", "remove", "sync_directory", "truncate"} <= set(calls)
    for number in range(1, len(calls) + 1):
        work = Workload(memory_path / str(number), StepFiles(crash_at(number)))
        with pytest.raises(Crash):
            work.run()
        work.abandon()
        work.check(memory_path / str(number))


def test_a_loss_of_power_at_any_step_loses_nothing_flushed(memory_path: Path) -> None:
    for number in range(1, len(steps(memory_path)) + 1):
        files = ForgetfulFiles(crash_at(number))
        work = Workload(memory_path / f"{number}", files)
        with pytest.raises(Crash):
            work.run()
        work.abandon()
        files.leave(memory_path / f"{number}-after")
        work.check(memory_path / f"{number}-after")


@settings(max_examples=300, deadline=None)
@given(step=st.integers(min_value=1, max_value=200), share=st.floats(min_value=0.0, max_value=1.0), seed=st.integers(0, 2**32))
def test_a_loss_of_power_may_take_any_blocks_of_what_was_not_synced(step: int, share: float, seed: int) -> None:
    """The daemon starts after it, with all that was flushed, whichever part of the rest has reached the disk."""
    dice = random.Random(seed)
    with workspace() as directory:
        files = ForgetfulFiles(crash_at(step))
        work = Workload(Path(directory) / "before", files)
        try:
            work.run()
        except Crash:
            work.abandon()
        files.leave(Path(directory) / "after", lambda inode, block: dice.random() < share)
        work.check(Path(directory) / "after")
