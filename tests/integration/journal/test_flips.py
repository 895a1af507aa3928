"""One byte of a journal of 1,000 records is changed: whichever it is, that is found, and told apart from a torn tail.

Damage in a segment is judged by that segment, the one after it, and what is said to come before. So each byte is tried in a
journal of these alone: a snapshot stands for all segments before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_agents.errors import JournalCorrupt
from supervisord_agents.journal import recovery, survey
from supervisord_agents.journal import snapshot as snapshots
from supervisord_agents.journal.files import REAL_FILES, Files
from supervisord_agents.journal.recovery import Recovered
from supervisord_agents.journal.segment import HEADER, RECORD_OVERHEAD, header_of_name
from tests.support.journal import fill, open_journal

RECORDS = 1000
SEGMENT_BYTES = 1024
"""As small as may be: every byte costs a look at its segment and the next."""
BATCH = 4
PAYLOADS = [b"%d" % number for number in range(RECORDS)]
DIRECTORY = Path("/journal")
FLIPS: dict[str, Callable[[int], int]] = {"a bit": lambda place: 1 << place % 8, "all bits": lambda place: 0xFF}


class Kept(Files):
    """Files in memory, to be read only."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def names(self, directory: Path) -> list[str]:
        return sorted(self.files)

    def read(self, path: Path) -> bytes:
        return self.files[path.name]

    def size(self, path: Path) -> int:
        return len(self.files[path.name])

    def is_directory(self, path: Path) -> bool:
        return True


@pytest.fixture(scope="module", params=["in order", "not in order"])
def journal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The segments of one that ended so, by name."""
    directory = tmp_path_factory.mktemp("journal")
    opened, _ = open_journal(directory, segment_bytes=SEGMENT_BYTES)
    fill(opened, PAYLOADS, BATCH)
    opened.close(clean=request.param == "in order")
    return {path.name: path.read_bytes() for path in sorted(directory.glob("segment-*"))}


def around(journal: dict[str, bytes], name: str, directory: Path) -> Kept:
    """The segment, the one after it, and a snapshot of all before, which is made in the directory."""
    names = list(journal)
    place = names.index(name)
    header = header_of_name(Path(name))
    assert header is not None
    covered = header.first_sequence - 1
    files = {kept: journal[kept] for kept in names[place : place + 2]}
    if covered:
        snapshots.write(directory, covered, [b""], REAL_FILES)
        files[snapshots.snapshot_name(covered)] = (directory / snapshots.snapshot_name(covered)).read_bytes()
    return Kept(files)


def read(files: Kept) -> tuple[Recovered | None, JournalCorrupt | None]:
    """What a daemon would get, or be told."""
    try:
        return recovery.read(DIRECTORY, files=files).recovered, None
    except JournalCorrupt as error:
        return None, error


def last_batch(journal: dict[str, bytes], *, clean: bool) -> int:
    """Where in the last segment the batch begins that may have been torn."""
    used = len(next(reversed(journal.values())).rstrip(b"\0"))
    # The mark of an orderly end is its last byte: a kind, and nothing behind it.
    size = RECORD_OVERHEAD if clean else sum(RECORD_OVERHEAD + len(payload) for payload in PAYLOADS[-BATCH:])
    return used - size


def test_the_journal_is_one_of_many_segments(journal: dict[str, bytes], tmp_path: Path) -> None:
    assert len(journal) >= 5
    whole = recovery.read(DIRECTORY, files=Kept(journal))
    assert [payload for _, payload in whole.recovered.records] == PAYLOADS
    for name in journal:
        assert survey.verify(DIRECTORY, files=around(journal, name, tmp_path)) == []


@pytest.mark.parametrize("flip", FLIPS)
def test_every_flip_is_found(journal: dict[str, bytes], flip: str, tmp_path: Path) -> None:
    clean = recovery.read(DIRECTORY, files=Kept(journal)).recovered.clean
    last = next(reversed(journal))
    torn_from = last_batch(journal, clean=clean)
    tried = torn = 0
    # Two journals that end in different ways differ in their last segments only.
    names = list(journal) if clean else [last]
    for name in names:
        data, files = journal[name], around(journal, name, tmp_path)
        # Most of a segment's preallocated room: a few hundred bytes of it stand for all.
        for place in range(min(len(data), len(data.rstrip(b"\0")) + 300)):
            changed = bytearray(data)
            changed[place] ^= FLIPS[flip](place)
            files.files[name] = bytes(changed)
            findings = survey.verify(DIRECTORY, files=files)
            assert findings, f"{name} at {place}: not found"
            assert {finding.path.name for finding in findings} == {name}
            fatal = any(finding.fatal for finding in findings)
            assert fatal == (name != last or place < torn_from), f"{name} at {place}: {findings}"
            tried += 1
            torn += not fatal
    assert tried > (RECORDS * RECORD_OVERHEAD if clean else 300)
    assert torn >= len(PAYLOADS[-1])


def test_what_is_refused_names_the_remedy_and_what_is_torn_is_cut_to_the_last_whole_record(
    journal: dict[str, bytes], tmp_path: Path
) -> None:
    last = next(reversed(journal))
    data = journal[last]
    files = around(journal, last, tmp_path)
    whole = recovery.read(DIRECTORY, files=files).recovered
    used = len(data.rstrip(b"\0"))
    for place in range(used):
        changed = bytearray(data)
        changed[place] ^= 0x40
        files.files[last] = bytes(changed)
        found, refused = read(files)
        if found is None:
            assert refused is not None
            assert "agentctl journal repair" in refused.hint
            assert last in refused.field
            continue
        assert found.torn_bytes > 0
        assert not found.clean
        assert found.records == whole.records[: len(found.records)]
        assert len(found.records) >= len(whole.records) - BATCH


def test_preallocated_room_is_looked_at_to_its_end(journal: dict[str, bytes], tmp_path: Path) -> None:
    """What the test above leaves out of it: every byte of it, in one segment."""
    last = next(reversed(journal))
    data = journal[last].ljust(SEGMENT_BYTES, b"\0")
    files = around(journal, last, tmp_path)
    for place in range(len(data.rstrip(b"\0")), len(data)):
        files.files[last] = data[:place] + b"\1" + data[place + 1 :]
        (finding,) = survey.verify(DIRECTORY, files=files)
        assert not finding.fatal


def test_every_flip_of_a_snapshot_is_found(tmp_path: Path) -> None:
    opened, _ = open_journal(tmp_path)
    fill(opened, PAYLOADS[:8], BATCH)
    opened.write_snapshot(b"the state of all " * 20, 8)
    opened.close()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".wal", ".snap")}
    (name,) = (name for name in files if name.endswith(".snap"))
    for place in range(len(files[name])):
        for flip in FLIPS.values():
            changed = bytearray(files[name])
            changed[place] ^= flip(place)
            findings = survey.verify(DIRECTORY, files=Kept({**files, name: bytes(changed)}))
            assert any(finding.fatal and finding.path.name == name for finding in findings), f"at {place}"
    assert HEADER.size < len(files[name])
