"""Looking at a damaged journal and salvaging it: every whole record survives, and what is lost is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from supervisord_agents.errors import DiskFull, JournalCorrupt, JournalError, JournalLocked, NotFound
from supervisord_agents.journal import survey
from supervisord_agents.journal.repair import repair
from supervisord_agents.journal.segment import HEADER, RECORD_OVERHEAD, segments
from supervisord_agents.journal.snapshot import snapshots
from tests.support.journal import Crash, StepFiles, fill, open_journal

SIZE = 1300
RECORDS = [bytes([number]) * SIZE for number in range(1, 9)]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Eight records in three segments, and no orderly end."""
    directory = tmp_path / "journal"
    opened, _ = open_journal(directory)
    fill(opened, RECORDS)
    opened.close(clean=False)
    return directory


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def paths(directory: Path) -> list[Path]:
    return [path for _, path in segments(directory)]


def in_record(number: int) -> int:
    """A place in the payload of the `number`-th record of a segment, from 0."""
    return HEADER.size + number * (RECORD_OVERHEAD + SIZE) + RECORD_OVERHEAD + 7


def opened(directory: Path) -> dict[int, bytes]:
    """The records by sequence, as a daemon would get them."""
    journal, recovered = open_journal(directory)
    journal.close(clean=False)
    return dict(recovered.records)


def test_a_sound_journal_has_no_findings_and_is_left_alone(journal: Path) -> None:
    before = {path.name: path.read_bytes() for path in journal.iterdir()}
    assert survey.verify(journal) == []
    report = repair(journal)
    assert (report.repaired, report.kept_in, report.findings) == (False, None, [])
    assert {path.name: path.read_bytes() for path in journal.iterdir() if path.name != "lock"} == {
        name: data for name, data in before.items() if name != "lock"
    }


def test_a_torn_tail_is_told_but_needs_no_repair(journal: Path) -> None:
    last = paths(journal)[-1]
    with last.open("r+b") as file:
        file.seek(len(last.read_bytes().rstrip(b"\0")))
        file.write(b"torn")
    (finding,) = survey.verify(journal)
    assert (finding.path, finding.fatal) == (last, False)
    assert "4 bytes" in finding.what
    assert not repair(journal).repaired
    assert len(opened(journal)) == 8


@pytest.mark.parametrize(
    ("segment", "place", "lost"),
    [
        (0, in_record(0), [(1, 1)]),
        (0, in_record(1), [(2, 2)]),
        (0, in_record(2), [(3, 3)]),
        (1, in_record(2), [(6, 6)]),
        (2, in_record(0), [(7, 7)]),
        (0, 5, []),
        (1, 9, []),
    ],
)
def test_every_whole_record_survives(journal: Path, segment: int, place: int, lost: list[tuple[int, int]]) -> None:
    damaged = paths(journal)[segment]
    flip(damaged, place)
    with pytest.raises(JournalCorrupt) as refused:
        opened(journal)
    (finding,) = survey.verify(journal)
    assert (str(finding.path), finding.fatal) == (refused.value.field, True)
    assert finding.what in str(refused.value)
    report = repair(journal)
    assert (report.repaired, report.lost) == (True, lost)
    gone = {number for first, last in lost for number in range(first, last + 1)}
    assert (report.records_kept, report.records_lost) == (8 - len(gone), len(gone))
    assert opened(journal) == {number: RECORDS[number - 1] for number in range(1, 9) if number not in gone}
    assert survey.verify(journal) == []
    assert report.kept_in is not None
    assert survey.verify(report.kept_in)[0].what == finding.what


def test_what_a_torn_batch_left_is_not_salvaged(tmp_path: Path) -> None:
    """It was never acknowledged, and the daemon would cut it too. What lies whole before it is kept."""
    directory = tmp_path / "journal"
    journal, _ = open_journal(directory)
    fill(journal, RECORDS[:2])
    fill(journal, RECORDS[2:6], batch=4)
    journal.close(clean=False)
    first, last = paths(directory)
    flip(last, in_record(1))
    (finding,) = survey.verify(directory)
    assert (finding.path, finding.fatal) == (last, False)
    flip(first, in_record(0))
    report = repair(directory)
    assert (report.lost, report.records_kept) == ([(1, 1)], 2)
    assert opened(directory) == {2: RECORDS[1], 3: RECORDS[2]}


def test_a_batch_damaged_after_its_sync_is_no_torn_tail(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    journal, _ = open_journal(directory)
    fill(journal, [b"record %d" % number for number in range(8)], batch=4)
    journal.close()
    (path,) = paths(directory)
    flip(path, HEADER.size + RECORD_OVERHEAD + 2)
    with pytest.raises(JournalCorrupt):
        opened(directory)
    report = repair(directory)
    assert (report.lost, report.records_kept) == ([(1, 1)], 8)
    assert sorted(opened(directory)) == [2, 3, 4, 5, 6, 7, 8]


def test_damage_in_a_repaired_segment_is_found(journal: Path) -> None:
    """All its records had been synced at once, but before its name was made: none of it can be torn."""
    flip(paths(journal)[1], in_record(0))
    repair(journal)
    (path,) = paths(journal)
    flip(path, in_record(4))
    assert [finding.fatal for finding in survey.verify(journal)] == [True]


def test_a_daemon_is_told_of_the_holes_and_goes_on_behind_them(journal: Path) -> None:
    flip(paths(journal)[1], in_record(0))
    repair(journal)
    again, recovered = open_journal(journal)
    assert (recovered.holes, recovered.sequence) == ([(4, 4)], 8)
    assert again.append(b"next") == 9
    again.close()
    assert opened(journal)[9] == b"next"


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_segment_becomes_a_hole(journal: Path, missing: int) -> None:
    paths(journal)[missing].unlink()
    assert "are missing" in survey.verify(journal)[0].what
    assert repair(journal).lost == [(missing * 3 + 1, missing * 3 + 3)]
    assert len(opened(journal)) == 5


def test_two_damages_are_two_findings_and_two_holes(journal: Path) -> None:
    first, middle, _ = paths(journal)
    flip(first, in_record(1))
    flip(middle, in_record(1))
    assert [finding.path for finding in survey.verify(journal)] == [first, middle]
    assert repair(journal).lost == [(2, 2), (5, 5)]
    assert sorted(opened(journal)) == [1, 3, 4, 6, 7, 8]


def test_what_a_damaged_snapshot_held_is_lost_and_said_so(journal: Path) -> None:
    again, _ = open_journal(journal)
    again.write_snapshot(b"the state", 5)
    again.close(clean=False)
    (path,) = snapshots(journal)
    flip(path, HEADER.size + 2)
    assert path == survey.verify(journal)[0].path
    report = repair(journal)
    assert report.lost == [(1, 3)]
    assert sorted(opened(journal)) == [4, 5, 6, 7, 8]
    assert not snapshots(journal)


def test_a_sound_snapshot_is_kept(journal: Path) -> None:
    again, _ = open_journal(journal)
    again.write_snapshot(b"the state", 5)
    fill(again, [b"after"])
    again.close(clean=False)
    flip(paths(journal)[0], in_record(2))
    report = repair(journal)
    assert (report.snapshot_sequence, report.lost) == (5, [(6, 6)])
    again, recovered = open_journal(journal)
    again.close(clean=False)
    assert (recovered.snapshot, [sequence for sequence, _ in recovered.records]) == (b"the state", [7, 8, 9])


def test_a_crash_in_the_repair_at_any_step_is_mended_by_another(journal: Path, tmp_path: Path) -> None:
    flip(paths(journal)[1], in_record(0))
    steps = 1
    while True:
        trial = tmp_path / f"trial-{steps}" / "journal"
        shutil.copytree(journal, trial)
        files = StepFiles(lambda number, _, steps=steps: Crash() if number == steps else None)
        try:
            repair(trial, files=files)
        except Crash:
            repair(trial)
            assert sorted(opened(trial)) == [1, 2, 3, 5, 6, 7, 8]
            steps += 1
        else:
            break
    assert steps > 5


def test_without_room_nothing_is_removed(journal: Path) -> None:
    flip(paths(journal)[1], in_record(0))
    before = {path.name for path in paths(journal)}
    with pytest.raises(DiskFull, match="No record was removed"):
        repair(journal, files=StepFiles(lambda _, name: OSError(28, "No space left on device") if name == "write" else None))
    assert {path.name for path in paths(journal)} == before


def test_a_journal_in_use_is_not_repaired_but_may_be_looked_at(journal: Path) -> None:
    running, _ = open_journal(journal)
    with pytest.raises(JournalLocked):
        repair(journal)
    assert survey.verify(journal) == []
    running.close()


@pytest.mark.parametrize("look", [survey.verify, survey.stats, repair, lambda path: list(survey.dump(path))])
def test_no_journal_is_said_so(tmp_path: Path, look: object) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFound, match="there is no journal"):
            look(directory)  # type: ignore[operator]


def test_dump_and_stats_read_past_damage(journal: Path) -> None:
    flip(paths(journal)[1], in_record(0))
    entries = list(survey.dump(journal))
    assert [entry.sequence for entry in entries] == [1, 2, 3, 5, 6, 7, 8]
    assert entries[0].payload == RECORDS[0]
    found = survey.stats(journal)
    assert (found.segments, found.records, found.first_sequence, found.last_sequence) == (3, 7, 1, 8)
    assert found.record_bytes == 7 * SIZE
    repair(journal)
    assert [entry.kind for entry in survey.dump(journal)] == ["payload"] * 3 + ["hole"] + ["payload"] * 4


@pytest.mark.parametrize("batch", [1, 4])
def test_verify_agrees_with_the_daemon_on_every_byte(memory_path: Path, batch: int) -> None:
    directory = memory_path / "journal"
    opened_journal, _ = open_journal(directory, segment_bytes=256, reserve_bytes=256)
    fill(opened_journal, [b"record %d" % number for number in range(1, 21)], batch)
    opened_journal.close()
    trial = memory_path / "trial"
    for path in paths(directory):
        for place in range(path.stat().st_size):
            shutil.copytree(directory, trial)
            flip(trial / path.name, place)
            fatal = any(finding.fatal for finding in survey.verify(trial))
            try:
                opened(trial)
                refused = False
            except JournalError:
                refused = True
            shutil.rmtree(trial)
            assert fatal == refused, f"{path.name} at {place}"
