"""Looking at a journal as it lies on disk. Nothing is changed and no lock is taken, so a daemon may be writing meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.errors import NotFound
from supervisord_agents.journal import recovery
from supervisord_agents.journal import snapshot as snapshots
from supervisord_agents.journal.files import REAL_FILES, Files
from supervisord_agents.journal.segment import HEADER, Damage, Kind, records_after, segments

_KINDS: dict[int, str] = {Kind.PAYLOAD: "payload", Kind.CLEAN_END: "clean end", Kind.HOLE: "hole"}


class Finding(NamedTuple):
    """Something wrong. `fatal`: the daemon refuses to start with it; else it is mended at the next start."""

    path: Path
    offset: int
    what: str
    fatal: bool


class Entry(NamedTuple):
    """One whole record. `kind` is "payload", "clean end", or "hole" where a repair left records out."""

    sequence: int
    kind: str
    payload: bytes
    path: Path
    offset: int


class Stats(NamedTuple):
    """Sizes in bytes; `bytes` is that of all files together, with preallocated room."""

    segments: int
    records: int
    first_sequence: int
    last_sequence: int
    snapshot_sequence: int
    snapshot_bytes: int
    record_bytes: int
    bytes: int


def verify(directory: Path, *, files: Files = REAL_FILES) -> list[Finding]:
    """All that is wrong with the journal; empty for a sound one. Raises NotFound if there is no journal."""
    check_exists(directory, files)
    damages: list[Damage] = []
    tail = recovery.read(directory, damages.append, files).tail
    findings = [Finding(damage.path, damage.offset, damage.what, fatal=True) for damage in damages]
    if tail is not None and tail.torn and not any(damage.path == tail.path for damage in damages):
        findings.append(Finding(tail.path, tail.end, f"{len(tail.torn)} bytes of an unfinished batch", fatal=False))
    return findings


def dump(directory: Path, *, files: Files = REAL_FILES) -> Iterator[Entry]:
    """Every whole record, segment by segment, also behind damage. Raises NotFound if there is no journal."""
    check_exists(directory, files)
    for header, path in segments(directory, files):
        for record in records_after(files.read(path), HEADER.size, header.first_sequence - 1, header):
            kind = _KINDS.get(record.kind, f"kind {record.kind}")
            yield Entry(record.sequence, kind, record.payload, path, record.start)


def stats(directory: Path, *, files: Files = REAL_FILES) -> Stats:
    """Figures of the journal, of what can be read of it. Raises NotFound if there is no journal."""
    records = record_bytes = first = last = 0
    for entry in dump(directory, files=files):
        records += 1
        record_bytes += len(entry.payload)
        first = first or entry.sequence
        last = entry.sequence
    kept = snapshots.newest_readable(directory, files)
    return Stats(
        segments=len(segments(directory, files)),
        records=records,
        first_sequence=first,
        last_sequence=last,
        snapshot_sequence=kept.sequence if kept else 0,
        snapshot_bytes=len(kept.payload) if kept else 0,
        record_bytes=record_bytes,
        bytes=sum(files.size(directory / name) for name in files.names(directory)),
    )


def check_exists(directory: Path, files: Files) -> None:
    """Raises NotFound for a directory that holds no journal."""
    if not files.is_directory(directory) or not (segments(directory, files) or snapshots.snapshots(directory, files)):
        raise NotFound("there is no journal.", field=str(directory), hint="Name its directory: <state_dir>/journal.")
