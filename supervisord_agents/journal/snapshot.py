"""Snapshots: the state as of one record, so that the records up to it need not be kept.

    magic "ASUPSNP1" | u32 version | u32 crc32 of the rest | u64 length | u64 sequence | payload

Little-endian; one file a snapshot, named by its sequence.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.journal.files import REAL_FILES, Files
from supervisord_agents.journal.segment import Damage

MAGIC = b"ASUPSNP1"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")
_HEADER_CHECKED = struct.Struct("<QQ")
TEMPORARY_NAME = "snapshot.new"
_NAME = re.compile(r"snapshot-([0-9a-f]{16})\.snap")


class Snapshot(NamedTuple):
    """The state after record `sequence`."""

    sequence: int
    payload: bytes


def snapshot_name(sequence: int) -> str:
    return f"snapshot-{sequence:016x}.snap"


def snapshots(directory: Path, files: Files = REAL_FILES) -> list[Path]:
    """The snapshots of a journal, oldest first."""
    return [directory / name for name in files.names(directory) if _NAME.fullmatch(name)]


def newest(directory: Path, files: Files = REAL_FILES) -> Snapshot | None:
    """The last snapshot; raises Damage if it is damaged, for the records that led to it may be gone."""
    found = snapshots(directory, files)
    return read(found[-1], files) if found else None


def newest_readable(directory: Path, files: Files = REAL_FILES) -> Snapshot | None:
    """The last snapshot that checks."""
    for path in reversed(snapshots(directory, files)):
        with contextlib.suppress(Damage):
            return read(path, files)
    return None


def write(directory: Path, snapshot: Snapshot, files: Files) -> None:
    """Return when the snapshot is durable under its name. Raises OSError, and then nothing that was there is touched."""
    temporary = directory / TEMPORARY_NAME
    lengths = _HEADER_CHECKED.pack(len(snapshot.payload), snapshot.sequence)
    crc = zlib.crc32(snapshot.payload, zlib.crc32(lengths))
    descriptor = files.create(temporary)
    try:
        files.write(descriptor, HEADER.pack(MAGIC, VERSION, crc, len(snapshot.payload), snapshot.sequence), 0)
        files.write(descriptor, snapshot.payload, HEADER.size)
        files.sync(descriptor)
        files.rename(temporary, directory / snapshot_name(snapshot.sequence))
    except OSError:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise
    finally:
        files.close(descriptor)
    files.sync_directory(directory)


def read(path: Path, files: Files = REAL_FILES) -> Snapshot:
    """Raises Damage for a file that does not check."""
    data = files.read(path)
    if len(data) < HEADER.size:
        raise _damaged(path, "it is cut short")
    magic, version, crc, length, sequence = HEADER.unpack_from(data)
    if magic == MAGIC and version > VERSION:
        raise _damaged(path, f"it is of format {version}, this version reads up to {VERSION}")
    payload = data[HEADER.size :]
    if magic != MAGIC or version != VERSION or length != len(payload):
        raise _damaged(path, "the header does not check")
    if zlib.crc32(payload, zlib.crc32(_HEADER_CHECKED.pack(length, sequence))) != crc:
        raise _damaged(path, "it does not check")
    if path.name != snapshot_name(sequence):
        raise _damaged(path, f"it holds the state after record {sequence}, its name says otherwise")
    return Snapshot(sequence, payload)


def _damaged(path: Path, what: str) -> Damage:
    return Damage(path, 0, f"this snapshot cannot be used: {what}")
