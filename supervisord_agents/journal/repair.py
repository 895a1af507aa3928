"""Salvaging a damaged journal: every whole record is kept in its place, and what is lost is marked as a hole.

A copy of the directory is made first, and the new segment is durable before anything old is removed. A crash at any point leaves
either the old files, or both, and then a second repair comes to the same end.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.errors import DiskFull, JournalError
from supervisord_agents.journal import snapshot as snapshots
from supervisord_agents.journal.files import NO_SPACE, REAL_FILES, Files, make_directory
from supervisord_agents.journal.journal import SYSTEM_RANDOM
from supervisord_agents.journal.lock import LOCK_NAME
from supervisord_agents.journal.segment import (
    HEADER,
    REPAIR_NAME,
    Header,
    Kind,
    Record,
    encode_header,
    encode_hole,
    encode_record,
    records_after,
    segment_name,
    segments,
)
from supervisord_agents.journal.space import RESERVE_NAME, SPARE_NAME
from supervisord_agents.journal.survey import Finding, check_exists, verify

_SALVAGED = (Kind.PAYLOAD, Kind.CLEAN_END)
_NOT_COPIED = (LOCK_NAME, SPARE_NAME, RESERVE_NAME)


class Report(NamedTuple):
    """What a repair did. `lost` holds ranges of sequences, both ends included."""

    repaired: bool
    """False: the daemon starts with this journal as it is, and nothing was changed."""
    kept_in: Path | None
    """The copy of the directory as it was."""
    findings: list[Finding]
    records_kept: int
    records_lost: int
    lost: list[tuple[int, int]]
    snapshot_sequence: int


class _Salvage(NamedTuple):
    """What is left: a snapshot, and the whole records behind it by sequence."""

    covered: int
    records: dict[int, Record]

    @property
    def holes(self) -> list[tuple[int, int]]:
        """The sequences that are missing, as ranges with both ends included."""
        expected, holes = self.covered + 1, []
        for sequence in self.records:
            if sequence > expected:
                holes.append((expected, sequence - 1))
            expected = sequence + 1
        return holes


def repair(directory: Path, *, files: Files = REAL_FILES, dice: random.Random = SYSTEM_RANDOM) -> Report:
    """Salvage every whole record of a damaged journal, after a copy of it is made beside it (`<name>.damaged`).

    Raises JournalLocked while a daemon runs on it, NotFound if there is no journal, DiskFull without room for the copy,
    JournalError for any other failure of the file system.
    """
    check_exists(directory, files)
    lock = files.lock(directory)
    try:
        findings = verify(directory, files=files)
        if not any(finding.fatal for finding in findings):
            return Report(False, None, findings, 0, 0, [], 0)
        kept_in = _copy(directory, files)
        salvage = _salvage(directory, files)
        _replace(directory, salvage, files, dice)
    except OSError as error:
        kind = DiskFull if error.errno in NO_SPACE else JournalError
        raise kind(f"the repair failed: {error}.", field=str(directory), kept="No record was removed.") from error
    finally:
        lock.release()
    lost = salvage.holes
    count = sum(last - first + 1 for first, last in lost)
    return Report(True, kept_in, findings, len(salvage.records), count, lost, salvage.covered)


def _copy(directory: Path, files: Files) -> Path:
    number, target = 1, directory.with_name(f"{directory.name}.damaged")
    while files.exists(target):
        number += 1
        target = directory.with_name(f"{directory.name}.damaged-{number}")
    names = [name for name in files.names(directory) if name not in _NOT_COPIED]
    make_directory(target, 0o700, files)
    try:
        for name in names:
            _copy_file(directory / name, target / name, files)
        files.sync_directory(target)
    except OSError:
        with contextlib.suppress(OSError):
            for name in names:
                files.remove(target / name)
            files.remove_directory(target)
        raise
    return target


def _copy_file(source: Path, target: Path, files: Files) -> None:
    descriptor = files.create(target)
    try:
        files.write(descriptor, files.read(source), 0)
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def _salvage(directory: Path, files: Files) -> _Salvage:
    kept = snapshots.newest_readable(directory, files)
    covered = kept.sequence if kept else 0
    records: dict[int, Record] = {}
    found = segments(directory, files)
    for header, path in found:
        for record in _whole(files.read(path), header, last=path == found[-1][1]):
            if record.sequence > covered and record.kind in _SALVAGED:
                records[record.sequence] = record
    return _Salvage(covered, dict(sorted(records.items())))


def _whole(data: bytes, header: Header, *, last: bool) -> list[Record]:
    """The whole records of a segment. Those behind a hole in a torn batch at the end are no part of the journal."""
    whole = list(records_after(data, HEADER.size, header.first_sequence - 1, header))
    if not last or not whole:
        return whole
    batch = whole[-1].sequence - whole[-1].in_batch
    expected = batch
    for number, record in enumerate(whole):
        if record.sequence >= batch:
            if record.sequence != expected:
                return whole[:number]
            expected += 1
    return whole


def _replace(directory: Path, salvage: _Salvage, files: Files, dice: random.Random) -> None:
    old_segments = segments(directory, files)
    epoch = max((header.epoch for header, _ in old_segments), default=0)
    header = Header((epoch >> 32) + 1 << 32 | dice.getrandbits(32), salvage.covered + 1)
    temporary = directory / REPAIR_NAME
    descriptor = files.create(temporary)
    try:
        files.write(descriptor, encode_header(header) + b"".join(_encoded(salvage, header)), 0)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.rename(temporary, directory / segment_name(header))
    files.sync_directory(directory)
    for _, path in old_segments:
        files.remove(path)
    for path in snapshots.snapshots(directory, files):
        if path.name != snapshots.snapshot_name(salvage.covered):
            files.remove(path)
    files.sync_directory(directory)


def _encoded(salvage: _Salvage, header: Header) -> Iterator[bytes]:
    ends = {last + 1: first for first, last in salvage.holes}
    for sequence, record in salvage.records.items():
        if sequence in ends:
            yield encode_hole(ends[sequence], sequence, header.checksum)
        yield encode_record(sequence, record.payload, header.checksum, record.kind)
