"""Reading a journal's directory: the newest snapshot and the records after it, or a refusal that names the damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from supervisord_agents.journal import snapshot as snapshots
from supervisord_agents.journal.files import REAL_FILES, Files
from supervisord_agents.journal.segment import Damage, Header, Scan, header_of_name, scan, scan_records, segments


class Recovered(NamedTuple):
    """What a journal held when it was opened."""

    snapshot: bytes | None
    snapshot_sequence: int
    """Of the last record that the snapshot covers; 0 without one."""
    records: list[tuple[int, bytes]]
    """Sequence and payload of every record after the snapshot. Sequences have gaps where a daemon ended in order."""
    torn_bytes: int
    """Cut from the tail and kept in a `torn-*.bin` file: what there is of the last batch, from its first bad record on.

    Nothing of it was acknowledged, unless the disk changed it afterwards."""
    clean: bool
    """True if the last daemon ended in order, or if there was none."""
    sequence: int
    """Of the last record of any kind; 0 for a new journal."""
    holes: list[tuple[int, int]]
    """First and last sequence of what a repair could not save."""


class SegmentFile(NamedTuple):
    """A segment that is closed for writing."""

    first_sequence: int
    path: Path
    size: int


class Tail(NamedTuple):
    """The last segment: the only one that may end in a torn batch."""

    path: Path
    header: Header
    data: bytes
    end: int
    next_sequence: int

    @property
    def torn(self) -> bytes:
        """What lies behind the last whole record, without the zeros behind that."""
        return self.data[self.end :].rstrip(b"\0")


class Contents(NamedTuple):
    """A directory as it was read; nothing is changed yet."""

    recovered: Recovered
    segments: list[SegmentFile]
    tail: Tail | None
    epoch: int
    """The highest so far; 0 for a new journal."""
    snapshot_bytes: int


Report = Callable[[Damage], None]


def refuse(damage: Damage) -> NoReturn:
    """The report of a daemon: one damage is enough."""
    raise damage


def read(directory: Path, report: Report = refuse, files: Files = REAL_FILES) -> Contents:
    """Read and check everything; damage that is no torn tail is reported. Raises OSError for what cannot be read."""
    snapshot = _snapshot(directory, report, files)
    covered = snapshot.sequence if snapshot else 0
    records: list[tuple[int, bytes]] = []
    holes: list[tuple[int, int]] = []
    tail: Tail | None = None
    sequence, clean, damaged = 0, True, False
    found_segments = segments(directory, files)
    for _, path in _needed(found_segments, covered):
        data = files.read(path)
        found = _scan(data, path, report)
        if not damaged:
            _check_place(path, found.header, None if tail is None else sequence + 1, covered, report)
        reading = found.reading
        damaged = bool(reading.bad) and (found.damaged or path != found_segments[-1][1])
        if damaged:
            report(Damage(path, reading.end, reading.bad))
        records += reading.payloads if found.header.first_sequence > covered else _behind(reading.payloads, covered)
        holes += reading.holes
        sequence = reading.next_sequence - 1
        clean = not reading.bad and reading.clean_ends[-1:] == [sequence]
        tail = Tail(path, found.header, data, reading.end, reading.next_sequence)
    if covered > sequence:
        path = directory / snapshots.snapshot_name(covered)
        report(Damage(path, 0, f"the records that led to it end at {sequence}: a segment is missing"))
    torn_bytes = len(tail.torn) if tail else 0
    recovered = Recovered(snapshot.payload if snapshot else None, covered, records, torn_bytes, clean, sequence, holes)
    closed = [SegmentFile(header.first_sequence, path, files.size(path)) for header, path in found_segments]
    epoch = max((header.epoch for header, _ in found_segments), default=0)
    return Contents(recovered, closed, tail, epoch, len(snapshot.payload) if snapshot else 0)


def _snapshot(directory: Path, report: Report, files: Files) -> snapshots.Snapshot | None:
    """The newest; one that is damaged counts as none, for the records that led to it may be gone."""
    try:
        return snapshots.newest(directory, files)
    except Damage as damage:
        report(damage)
        return None


def _scan(data: bytes, path: Path, report: Report) -> Scan:
    try:
        return scan(data, path)
    except Damage as damage:
        report(damage)
        header = header_of_name(path)
        assert header is not None
        return scan_records(data, header)


def _needed(found: list[tuple[Header, Path]], covered: int) -> list[tuple[Header, Path]]:
    """Without the first ones, if the snapshot covers them: a crash may have left some of them behind."""
    return found[max((index for index, (header, _) in enumerate(found) if header.first_sequence <= covered), default=0) :]


def _behind(payloads: list[tuple[int, bytes]], covered: int) -> list[tuple[int, bytes]]:
    return [record for record in payloads if record[0] > covered]


def _check_place(path: Path, header: Header, expected: int | None, covered: int, report: Report) -> None:
    """Report a hole between this segment and what comes before it."""
    first = header.first_sequence
    if expected is None:
        if first > covered + 1:
            report(Damage(path, 0, f"records {covered + 1} to {first - 1} are missing before this segment"))
    elif first > expected:
        report(Damage(path, 0, f"records {expected} to {first - 1} are missing before this segment"))
    elif first < expected:
        report(Damage(path, 0, f"it begins with record {first}, but the segment before it reaches {expected - 1}"))


def mend_tail(directory: Path, tail: Tail, *, clean: bool, files: Files) -> None:
    """Cut what is behind the last whole record, keep a copy of it, and make what is left durable. Raises OSError.

    After an end that was not in order, records may be in the page cache only; and if their write-back had failed, the kernel
    takes those pages for clean (fsync(2), "EIO"), so a sync alone would prove nothing. They are written once more, in place.
    """
    if tail.torn:
        _keep_torn(directory, tail, files)
    descriptor = files.open(tail.path)
    try:
        if not clean:
            files.write(descriptor, tail.data[: tail.end], 0)
        files.truncate(descriptor, tail.end)
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def _keep_torn(directory: Path, tail: Tail, files: Files) -> None:
    descriptor = files.create(directory / f"torn-{tail.next_sequence:016x}-{tail.header.epoch:016x}.bin")
    try:
        files.write(descriptor, tail.torn, 0)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.sync_directory(directory)
