"""Snapshots: the state as of one record, so that the records up to it need not be kept.

    magic "ASUPSNP1" | u32 version | u32 crc32 | u64 length | u64 sequence | payload

Little-endian; one file a snapshot, named by its sequence. The checksum is that of the payload, then length and sequence: the
length is known last. In version 1 it was that of length, sequence and payload.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.journal.files import REAL_FILES, Files
from supervisord_agents.journal.segment import Damage

MAGIC = b"ASUPSNP1"
VERSION = 2
SYNC_BYTES = 1024 * 1024
"""Written and not yet synced: one sync of all would hold up those of the records for long."""
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


def write(directory: Path, sequence: int, pieces: Iterable[bytes], files: Files) -> int:
    """Return when the state after record `sequence` is durable under its name; gives its size in bytes.

    Its bytes come in pieces, and go to the disk as they come. Raises OSError, or what the pieces raise, and then nothing that was
    there is touched.
    """
    temporary = directory / TEMPORARY_NAME
    length = crc = unsynced = 0
    descriptor = files.create(temporary)
    try:
        for piece in pieces:
            files.write(descriptor, piece, HEADER.size + length)
            length += len(piece)
            unsynced += len(piece)
            crc = zlib.crc32(piece, crc)
            if unsynced >= SYNC_BYTES:
                unsynced = 0
                files.sync_data(descriptor)
        crc = zlib.crc32(_HEADER_CHECKED.pack(length, sequence), crc)
        files.write(descriptor, HEADER.pack(MAGIC, VERSION, crc, length, sequence), 0)
        files.sync(descriptor)
        files.rename(temporary, directory / snapshot_name(sequence))
    except BaseException:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise
    finally:
        files.close(descriptor)
    files.sync_directory(directory)
    return length


def read(path: Path, files: Files = REAL_FILES) -> Snapshot:
    """Raises Damage for a file that does not check."""
    data = files.read(path)
    if len(data) < HEADER.size:
        raise _damaged(path, "it is cut short")
    magic, version, crc, length, sequence = HEADER.unpack_from(data)
    if magic == MAGIC and version > VERSION:
        raise _damaged(path, f"it is of format {version}, this version reads up to {VERSION}")
    payload = data[HEADER.size :]
    if magic != MAGIC or not 1 <= version <= VERSION or length != len(payload):
        raise _damaged(path, "the header does not check")
    lengths = _HEADER_CHECKED.pack(length, sequence)
    checked = (lengths, payload) if version == 1 else (payload, lengths)
    if zlib.crc32(checked[1], zlib.crc32(checked[0])) != crc:
        raise _damaged(path, "it does not check")
    if path.name != snapshot_name(sequence):
        raise _damaged(path, f"it holds the state after record {sequence}, its name says otherwise")
    return Snapshot(sequence, payload)


def _damaged(path: Path, what: str) -> Damage:
    return Damage(path, 0, f"this snapshot cannot be used: {what}")
