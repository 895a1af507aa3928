"""Room on the disk: what is given when there is less and less of it, and what is kept back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_agents.errors import DiskFull
from supervisord_agents.journal import space as space_module
from supervisord_agents.journal.journal import Journal
from supervisord_agents.journal.space import RESERVE_NAME, SPARE_NAME, Space
from tests.support.journal import SmallDisk, fill, open_journal, payloads

SEGMENT = 64 * 1024
RESERVE = 16 * 1024


class Disk:
    """Its room can be changed at any time."""

    def __init__(self) -> None:
        self.capacity: int | None = None
        self.files = SmallDisk(lambda: self.capacity)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def a_space(directory: Path, disk: Disk) -> Space:
    return Space(directory, SEGMENT, RESERVE, disk.files)


def taken(space: Space, size: int, *, starting: bool = False) -> int:
    """Take room as the journal does, with a name of its own, and give its size."""
    room = space.take(size, starting=starting)
    os.close(room.descriptor)
    room.path.rename(room.path.with_name(f"taken-{room.path.stat().st_ino}"))
    return room.size


def test_with_room_there_are_a_reserve_and_a_spare(tmp_path: Path, disk: Disk) -> None:
    space = a_space(tmp_path, disk)
    space.reclaim()
    assert space.accepting
    assert (tmp_path / RESERVE_NAME).stat().st_size == RESERVE
    assert (tmp_path / SPARE_NAME).stat().st_size == SEGMENT
    assert taken(space, 100) == SEGMENT
    assert not (tmp_path / SPARE_NAME).exists()
    space.prepare()
    assert (tmp_path / SPARE_NAME).stat().st_size == SEGMENT


def test_without_room_for_a_spare_nothing_more_is_accepted_and_the_reserve_is_used_last(tmp_path: Path, disk: Disk) -> None:
    space = a_space(tmp_path, disk)
    space.reclaim()
    assert taken(space, 100) == SEGMENT
    disk.capacity = SEGMENT + RESERVE + 1000
    space.prepare()
    assert not space.accepting
    assert "No space" in space.why
    assert taken(space, 100) == RESERVE
    with pytest.raises(OSError, match="No space"):
        taken(space, 1001)


def test_with_less_room_a_smaller_segment_is_given(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "SMALLEST_BYTES", 4096)
    disk.capacity = SEGMENT // 4 + 10
    space = a_space(tmp_path, disk)
    assert taken(space, 32, starting=True) == SEGMENT // 4
    assert not space.accepting
    with pytest.raises(OSError, match="No space"):
        taken(space, 32, starting=True)


def test_a_start_keeps_the_reserve_if_anything_else_gives_room(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "SMALLEST_BYTES", 4096)
    a_space(tmp_path, disk).reclaim()
    (tmp_path / SPARE_NAME).unlink()
    disk.capacity = RESERVE + 5000
    assert taken(a_space(tmp_path, disk), 32, starting=True) == 4096
    assert (tmp_path / RESERVE_NAME).exists()
    assert taken(a_space(tmp_path, disk), 32, starting=True) == RESERVE


def test_a_reserve_too_small_for_a_batch_gives_way_to_it(tmp_path: Path, disk: Disk) -> None:
    space = a_space(tmp_path, disk)
    space.reclaim()
    (tmp_path / SPARE_NAME).unlink()
    disk.capacity = RESERVE + 100
    assert taken(space, RESERVE + 50) == RESERVE + 50


def test_it_accepts_again_when_there_is_room_for_reserve_and_spare(tmp_path: Path, disk: Disk) -> None:
    disk.capacity = RESERVE + 10
    space = a_space(tmp_path, disk)
    space.reclaim()
    assert not space.accepting
    assert (tmp_path / RESERVE_NAME).exists()
    disk.capacity = RESERVE + SEGMENT
    space.reclaim()
    assert space.accepting


def fill_the_disk(journal: Journal, disk: Disk, directory: Path) -> list[bytes]:
    """Records until the disk is full."""
    disk.capacity = sum(path.stat().st_size for path in directory.iterdir())
    taken = []
    for number in range(1000):
        record = b"%d" % number * 300
        try:
            journal.append(record, urgent=False)
        except DiskFull:
            return taken
        journal.flush()
        journal.prepare()
        taken.append(record)
    raise AssertionError("the disk never was full")


def test_a_full_disk_refuses_new_work_takes_ends_and_forgets_nothing(tmp_path: Path, disk: Disk) -> None:
    journal, _ = open_journal(tmp_path, files=disk.files)
    records = fill_the_disk(journal, disk, tmp_path)
    assert records
    with pytest.raises(DiskFull, match="no new work is taken"):
        journal.append(b"new", urgent=False)
    assert not journal.accepting
    ends = [b"end" * 100] * 4
    fill(journal, ends)
    disk.capacity = None
    journal.try_reclaim()
    assert journal.accepting
    journal.append(b"new", urgent=False)
    journal.close()
    journal, recovered = open_journal(tmp_path)
    assert payloads(recovered) == [*records, *ends, b"new"]
    journal.close()


def test_a_journal_that_filled_the_disk_can_be_opened_in_what_its_own_tail_leaves(tmp_path: Path, disk: Disk) -> None:
    journal, _ = open_journal(tmp_path, files=disk.files)
    records = fill_the_disk(journal, disk, tmp_path)
    urgent = []
    while journal.append(b"end" * 200) and not urgent[4:]:
        journal.flush()
        urgent.append(b"end" * 200)
    journal.close(clean=False)
    journal, recovered = open_journal(tmp_path, files=disk.files)
    assert payloads(recovered)[: len(records) + len(urgent)] == records + urgent
    assert not journal.accepting
    fill(journal, [b"one more end"])
    journal.close(clean=False)


def test_without_any_room_the_start_is_refused_and_nothing_is_touched(tmp_path: Path, disk: Disk) -> None:
    journal, _ = open_journal(tmp_path, files=disk.files)
    fill(journal, [b"a", b"b"])
    journal.close()
    (tmp_path / RESERVE_NAME).unlink()
    disk.capacity = 1
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"}
    for _ in range(2):
        with pytest.raises(DiskFull, match="cannot be opened"):
            open_journal(tmp_path, files=disk.files)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"} == before
    disk.capacity = None
    journal, recovered = open_journal(tmp_path, files=disk.files)
    assert payloads(recovered) == [b"a", b"b"]
    journal.close()
