"""The journal on a real file system: what it keeps, what it takes, and what it refuses."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisord_agents.errors import InvalidInput, JournalCorrupt, JournalError, JournalLocked
from supervisord_agents.journal.files import Files
from supervisord_agents.journal.recovery import Recovered
from supervisord_agents.journal.segment import HEADER, RECORD_OVERHEAD, segments
from supervisord_agents.journal.snapshot import snapshots
from tests.support.journal import SEGMENT_BYTES, fill, open_journal, payloads

RECORDS = [b"record %d" % number for number in range(1, 31)]


def crashed(directory: Path, records: list[bytes]) -> None:
    """A journal that holds the records and did not end in order."""
    journal, _ = open_journal(directory)
    fill(journal, records)
    journal.close(clean=False)


def segment_paths(directory: Path) -> list[Path]:
    return [path for _, path in segments(directory)]


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    journal, recovered = open_journal(tmp_path / "state" / "journal")
    assert recovered == Recovered(None, 0, [], 0, True, 0, [])
    assert (journal.sequence, journal.durable, journal.accepting) == (0, 0, True)
    assert stat.S_IMODE((tmp_path / "state" / "journal").stat().st_mode) == 0o700
    journal.close()


def test_every_directory_that_is_made_is_made_durable(tmp_path: Path) -> None:
    synced = []

    class Watched(Files):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)
            super().sync_directory(path)

    journal, _ = open_journal(tmp_path / "a" / "b" / "journal", files=Watched())
    journal.close()
    assert synced[:3] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_snapshot_after_the_end_is_refused(tmp_path: Path) -> None:
    """The directory may belong to another process by then."""
    journal, _ = open_journal(tmp_path)
    fill(journal, [b"a"])
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.write_snapshot(b"state", 1)


def test_records_come_back_in_order(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    assert [journal.append(record) for record in RECORDS] == list(range(1, 31))
    assert journal.durable == 0
    assert journal.flush() == journal.durable == journal.sequence == 30
    journal.close()
    journal, recovered = open_journal(tmp_path)
    assert recovered.records == list(enumerate(RECORDS, start=1))
    assert (recovered.clean, recovered.torn_bytes, recovered.sequence) == (True, 0, 31)
    assert journal.append(b"next") == 32
    journal.close()


def test_without_the_mark_of_an_orderly_end_it_is_not_clean(tmp_path: Path) -> None:
    crashed(tmp_path, RECORDS)
    journal, recovered = open_journal(tmp_path)
    assert (payloads(recovered), recovered.clean) == (RECORDS, False)
    journal.close()


def test_a_flush_without_records_writes_nothing(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    assert journal.flush() == 0
    journal.close()


def test_what_was_not_flushed_is_flushed_by_an_orderly_end(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.append(b"late")
    journal.close()
    journal, recovered = open_journal(tmp_path)
    assert payloads(recovered) == [b"late"]
    journal.close()


def test_segments_rotate_and_large_batches_get_room(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    large = [os.urandom(size) for size in (1, SEGMENT_BYTES - 100, SEGMENT_BYTES * 3, 50, 2000, 2000, 2000)]
    fill(journal, large)
    for record in large:
        journal.append(record)
    journal.flush()
    paths = segment_paths(tmp_path)
    assert len(paths) > 4
    assert journal.size_bytes == sum(map(len, large)) * 2 + RECORD_OVERHEAD * len(large) * 2 + HEADER.size * len(paths)
    journal.close()
    journal, recovered = open_journal(tmp_path)
    assert payloads(recovered) == large * 2
    journal.close()


def test_a_record_too_large_changes_nothing(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path, max_record_bytes=100)
    with pytest.raises(InvalidInput, match="101 bytes"):
        journal.append(bytes(101))
    assert journal.sequence == 0
    assert journal.append(bytes(100)) == 1
    journal.close()


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(b"x")
    with pytest.raises(JournalError, match="closed"):
        journal.flush()


def test_the_second_owner_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    with pytest.raises(JournalLocked, match=f"process {os.getpid()} owns") as refused:
        open_journal(tmp_path)
    assert refused.value.field == str(tmp_path)
    assert refused.value.hint
    journal.close()
    journal, _ = open_journal(tmp_path)
    journal.close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened") as refused:
        open_journal(tmp_path / "file" / "journal")
    assert str(tmp_path / "file") in str(refused.value)


def test_a_torn_tail_at_every_byte(memory_path: Path) -> None:
    crashed(memory_path / "whole", RECORDS[:8])
    original = segment_paths(memory_path / "whole")[-1]
    data = original.read_bytes().rstrip(b"\0")
    boundaries = [HEADER.size]
    for record in RECORDS[:8]:
        boundaries.append(boundaries[-1] + RECORD_OVERHEAD + len(record))
    for size in range(HEADER.size, len(data) + 1):
        directory = memory_path / str(size)
        directory.mkdir()
        (directory / original.name).write_bytes(data[:size])
        journal, recovered = open_journal(directory)
        whole = sum(end <= size for end in boundaries) - 1
        assert payloads(recovered) == RECORDS[:whole]
        torn = data[boundaries[whole] : size].rstrip(b"\0")
        assert recovered.torn_bytes == len(torn)
        assert [path.read_bytes() for path in directory.glob("torn-*.bin")] == ([torn] if torn else [])
        assert (directory / original.name).stat().st_size == boundaries[whole]
        fill(journal, [b"after"])
        journal.close()
        journal, recovered = open_journal(directory)
        assert (payloads(recovered), recovered.torn_bytes) == ([*RECORDS[:whole], b"after"], 0)
        journal.close()


def test_garbage_behind_the_tail_is_cut_and_kept(tmp_path: Path) -> None:
    crashed(tmp_path, RECORDS)
    path = segment_paths(tmp_path)[-1]
    end = len(path.read_bytes().rstrip(b"\0"))
    with path.open("r+b") as file:
        file.seek(end + 10)
        file.write(b"garbage")
    journal, recovered = open_journal(tmp_path)
    assert (payloads(recovered), recovered.torn_bytes) == (RECORDS, 17)
    (kept,) = tmp_path.glob("torn-000000000000001f-*.bin")
    assert kept.read_bytes() == bytes(10) + b"garbage"
    journal.close()


def three_segments(directory: Path) -> list[Path]:
    """A journal whose segments hold three records each, the last one two."""
    journal, _ = open_journal(directory)
    fill(journal, [bytes([number]) * 1300 for number in range(8)])
    journal.close(clean=False)
    return segment_paths(directory)


def test_damage_before_the_tail_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    first, middle, last = three_segments(tmp_path)
    for path, place in ((first, 100), (first, 2700), (middle, 2700), (last, 100), (last, 5), (middle, 5)):
        data = bytearray(path.read_bytes())
        data[place] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(JournalCorrupt) as refused:
            open_journal(tmp_path)
        assert refused.value.field == str(path)
        assert "agentctl journal repair" in refused.value.hint
        assert path.read_bytes() == data
        data[place] ^= 0x10
        path.write_bytes(data)
    journal, recovered = open_journal(tmp_path)
    assert len(recovered.records) == 8
    journal.close()


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_segment_is_refused(tmp_path: Path, missing: int) -> None:
    three_segments(tmp_path)[missing].unlink()
    with pytest.raises(JournalCorrupt, match=f"records {missing * 3 + 1} to {missing * 3 + 3} are missing"):
        open_journal(tmp_path)


def test_a_segment_cut_short_before_the_last_is_refused(tmp_path: Path) -> None:
    _, middle, _ = three_segments(tmp_path)
    os.truncate(middle, 2000)
    with pytest.raises(JournalCorrupt, match="beyond the segment"):
        open_journal(tmp_path)


def test_a_segment_that_lost_its_last_record_whole_is_refused(tmp_path: Path) -> None:
    _, middle, _ = three_segments(tmp_path)
    os.truncate(middle, HEADER.size + 2 * (RECORD_OVERHEAD + 1300))
    with pytest.raises(JournalCorrupt, match="records 6 to 6 are missing"):
        open_journal(tmp_path)


def test_a_snapshot_replaces_what_it_covers(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    fill(journal, [bytes(1300)] * 8)
    journal.write_snapshot(b"state after 2", 2)
    assert len(segment_paths(tmp_path)) == 3
    journal.write_snapshot(b"state after 7", 7)
    assert len(segment_paths(tmp_path)) == 1
    assert [path.name for path in snapshots(tmp_path)] == ["snapshot-0000000000000007.snap"]
    assert journal.size_bytes < 3 * 1400
    journal.close()
    journal, recovered = open_journal(tmp_path)
    assert (recovered.snapshot, recovered.snapshot_sequence, recovered.sequence) == (b"state after 7", 7, 9)
    assert recovered.records == [(8, bytes(1300))]
    journal.write_snapshot(b"state after 9", 9)
    journal.close()
    assert len(segment_paths(tmp_path)) == 1
    journal, recovered = open_journal(tmp_path)
    assert (recovered.snapshot, recovered.records) == (b"state after 9", [])
    journal.close()


def test_a_snapshot_leaves_the_segment_alone_that_took_the_place_of_an_empty_one(tmp_path: Path) -> None:
    """A first batch that is too large for the segment of the start: the next one begins with the same record."""
    journal, _ = open_journal(tmp_path)
    fill(journal, [b"a", b"b"])
    journal.close()
    journal, recovered = open_journal(tmp_path)
    large = bytes(SEGMENT_BYTES)
    fill(journal, [large])
    journal.write_snapshot(b"state after 3", recovered.sequence)
    assert len(segment_paths(tmp_path)) == 1
    fill(journal, [b"c"])
    journal.close()
    journal, recovered = open_journal(tmp_path)
    assert (recovered.snapshot, payloads(recovered)) == (b"state after 3", [large, b"c"])
    journal.close()


def test_a_snapshot_must_not_run_ahead_of_the_disk(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.append(b"x")
    with pytest.raises(JournalError, match="not durable yet"):
        journal.write_snapshot(b"state", 1)
    journal.close()


def test_a_damaged_snapshot_is_refused_at_every_byte(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    fill(journal, [b"a", b"b"])
    journal.write_snapshot(b"the state", 2)
    journal.close()
    (path,) = snapshots(tmp_path)
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(len(whole))] + [whole + b"\0"]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(JournalCorrupt, match="agentctl journal repair") as refused:
            open_journal(tmp_path)
        assert refused.value.field == str(path)


def test_a_snapshot_without_the_segments_behind_it_is_refused(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    fill(journal, [b"a", b"b"])
    journal.write_snapshot(b"the state", 2)
    journal.close()
    for path in segment_paths(tmp_path):
        path.unlink()
    with pytest.raises(JournalCorrupt, match="a segment is missing"):
        open_journal(tmp_path)


def test_the_room_of_other_files_is_not_taken_for_records(tmp_path: Path) -> None:
    crashed(tmp_path, RECORDS)
    (tmp_path / "spare").write_bytes(b"left by a crash")
    (tmp_path / "snapshot.new").write_bytes(b"left by a crash")
    (tmp_path / "repair.new").write_bytes(b"left by a crash")
    (tmp_path / "notes.txt").write_text("somebody's")
    journal, recovered = open_journal(tmp_path)
    assert payloads(recovered) == RECORDS
    journal.close()
    assert not (tmp_path / "snapshot.new").exists()
    assert not (tmp_path / "repair.new").exists()
    assert (tmp_path / "notes.txt").exists()
