"""The simulated disk forgets what a real one may forget, and nothing else."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

from supervisord_agents.journal.files import make_directory
from tests.simulation.disk import SECTOR, Disk, SimFiles
from tests.simulation.loop import Crash, Loop, Process

FILE = Path("/file")
ROOT = Path("/")


class Bench:
    """A disk with a process that uses it; `said` is what the disk found wrong with that."""

    def __init__(self, seed: int) -> None:
        self.said: list[str] = []
        self.disk = Disk(Loop(lambda error: None), Random(seed), 64 * 1024, self.said.append)
        self.process = Process("p")
        self.files = SimFiles(self.disk, self.process, lambda what: None)

    def write(self, data: bytes, *, path: Path = FILE, offset: int = 0, sync: bool = False) -> None:
        descriptor = self.files.open(path) if self.files.exists(path) else self.files.create(path)
        self.files.write(descriptor, data, offset)
        if sync:
            self.files.sync_data(descriptor)
        self.files.close(descriptor)

    def read(self, path: Path = FILE) -> bytes | None:
        return self.files.read(path) if self.files.exists(path) else None


def left(seed: int, *, sync: bool, names: bool) -> bytes | None:
    """What a loss of power leaves of two sectors of ones, in a file of zeros that was there."""
    bench = Bench(seed)
    bench.write(bytes(2 * SECTOR), sync=True)
    if names:
        bench.files.sync_directory(ROOT)
    bench.write(b"1" * 2 * SECTOR, sync=sync)
    bench.disk.lose_power()
    return bench.read()


def test_what_was_synced_is_kept() -> None:
    assert {left(seed, sync=True, names=True) for seed in range(50)} == {b"1" * 2 * SECTOR}


def test_what_was_not_synced_may_be_there_or_not_sector_by_sector_or_spoilt() -> None:
    found = {left(seed, sync=False, names=True) for seed in range(200)}
    old, new = bytes(SECTOR), b"1" * SECTOR
    assert {old + old, old + new, new + old, new + new} <= found
    assert len(found) > 4


def test_a_name_that_was_not_synced_may_be_lost() -> None:
    found = {left(seed, sync=True, names=False) for seed in range(50)}
    assert found == {None, b"1" * 2 * SECTOR}


def test_a_rename_is_there_whole_or_not_at_all() -> None:
    found = set()
    for seed in range(60):
        bench = Bench(seed)
        bench.write(b"old", sync=True)
        bench.write(b"new", path=Path("/other"), sync=True)
        bench.files.sync_directory(ROOT)
        bench.files.rename(Path("/other"), FILE)
        bench.disk.lose_power()
        found.add((bench.read(), bench.read(Path("/other"))))
    assert found == {(b"old", b"new"), (b"new", None)}


def test_a_directory_that_was_made_but_not_synced_is_made_durable_by_the_next_who_asks() -> None:
    for seed in range(20):
        bench = Bench(seed)
        bench.files.make_directory(Path("/made"), 0o700)
        assert not make_directory(Path("/made"), 0o700, bench.files)
        bench.disk.lose_power()
        assert bench.files.is_directory(Path("/made"))


def test_a_kill_loses_nothing_that_was_written() -> None:
    bench = Bench(0)
    bench.write(b"written")
    bench.process.alive = False
    with pytest.raises(Crash):
        bench.files.read(FILE)
    bench.disk.forget_process()
    assert SimFiles(bench.disk, Process("q"), lambda what: None).read(FILE) == b"written"


def test_a_failed_sync_loses_the_page_for_good() -> None:
    """The next sync says that all is well, and it is not: fsync(2)."""
    lost = 0
    for seed in range(50):
        bench = Bench(seed)
        bench.write(bytes(SECTOR), sync=True)
        bench.files.sync_directory(ROOT)
        descriptor = bench.files.open(FILE)
        bench.files.write(descriptor, b"1" * SECTOR, 0)
        bench.disk.faults.sync_fails = 1.0
        with pytest.raises(OSError, match="Input/output") as refused:
            bench.files.sync_data(descriptor)
        assert refused.value.errno == errno.EIO
        bench.disk.faults.none()
        bench.files.sync_data(descriptor)
        assert bench.said == ["a sync that failed was tried again by the same process"]
        bench.disk.lose_power()
        lost += bench.read() == bytes(SECTOR)
    assert 10 < lost < 40


def test_a_full_disk_refuses_to_grow_but_not_to_write_in_place() -> None:
    bench = Bench(0)
    descriptor = bench.files.create(FILE)
    bench.files.allocate(descriptor, 4096)
    bench.disk.foreign = bench.disk.total - bench.disk.used - 100
    assert bench.files.usage(ROOT).free == 100
    with pytest.raises(OSError, match="No space") as refused:
        bench.files.allocate(descriptor, 8192)
    assert refused.value.errno == errno.ENOSPC
    bench.files.write(descriptor, b"1" * 4096, 0)
    with pytest.raises(OSError, match="No space"):
        bench.files.write(descriptor, b"1" * 200, 4096)
    bench.disk.foreign = 0
    bench.files.allocate(descriptor, 8192)


def test_what_was_cut_off_does_not_come_back_with_new_room() -> None:
    for seed in range(20):
        bench = Bench(seed)
        bench.write(b"1" * 2 * SECTOR, sync=True)
        bench.files.sync_directory(ROOT)
        descriptor = bench.files.open(FILE)
        bench.files.truncate(descriptor, 10)
        bench.files.allocate(descriptor, 2 * SECTOR)
        bench.files.sync(descriptor)
        bench.disk.lose_power()
        assert bench.read() == b"1" * 10 + bytes(2 * SECTOR - 10)
