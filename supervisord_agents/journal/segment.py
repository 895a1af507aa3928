"""The format of a segment: a header, then records until the first zero length.

    header   magic "ASUPWAL1" | u32 version | u32 crc32 of the rest | u64 epoch | u64 first sequence       32 bytes
    record   u32 length | u32 crc32 of what follows | u64 sequence | u8 kind | payload                     length counts kind and payload

Little-endian. Sequences rise by one from record to record and from segment to segment. A segment is preallocated and reads as zeros
behind its last record. Kind 1 is a payload, kind 2 marks an orderly end of the daemon and carries none. The epoch rises with every start.

A record that does not check is a torn tail if nothing behind it in the last segment is a record; it is damage if something is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.errors import JournalCorrupt

MAGIC = b"ASUPWAL1"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")
_HEADER_CHECKED = struct.Struct("<IQQ")
RECORD = struct.Struct("<II")
_SEQUENCE_KIND = struct.Struct("<QB")
_LENGTH_CRC_SEQUENCE = struct.Struct("<IIQ")
RECORD_OVERHEAD = RECORD.size + _SEQUENCE_KIND.size
SEQUENCE_BYTES = 8
_RESYNC_WINDOW = 1 << 32
"""Sequences further ahead than this are no sign of a record behind a damaged one."""


class Kind(IntEnum):
    """What a record is."""

    PAYLOAD = 1
    CLEAN_END = 2


class Record(NamedTuple):
    """A record that checked."""

    sequence: int
    kind: Kind
    payload: bytes
    offset: int
    end: int


class Header(NamedTuple):
    """The beginning of a segment."""

    epoch: int
    first_sequence: int


class Scan(NamedTuple):
    """What a segment holds. `end` is where the next record goes; `bad` says what is wrong there, if anything."""

    header: Header
    records: list[Record]
    end: int
    bad: str
    damaged: bool
    """True: there are records behind the bad place, so it is no torn tail."""


def segment_name(first_sequence: int) -> str:
    return f"segment-{first_sequence:016x}.wal"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments of a journal with their first sequences, in order."""
    return sorted((int(path.stem.partition("-")[2], 16), path) for path in directory.glob("segment-*.wal"))


def encode_header(header: Header) -> bytes:
    checked = _HEADER_CHECKED.pack(VERSION, *header)
    return HEADER.pack(MAGIC, VERSION, zlib.crc32(checked), *header)


def decode_header(data: bytes, path: Path) -> Header:
    """Raises JournalCorrupt for what is no header, or of a newer version."""
    if len(data) < HEADER.size:
        raise _corrupt(path, 0, "the header is cut short")
    magic, version, crc, epoch, first_sequence = HEADER.unpack_from(data)
    if magic != MAGIC or zlib.crc32(_HEADER_CHECKED.pack(version, epoch, first_sequence)) != crc:
        raise _corrupt(path, 0, "the header does not check")
    if version > VERSION:
        raise _corrupt(path, 0, f"it is of format {version}, this version reads up to {VERSION}")
    return Header(epoch, first_sequence)


def encode_record(sequence: int, payload: bytes, kind: Kind = Kind.PAYLOAD) -> bytes:
    body = _SEQUENCE_KIND.pack(sequence, kind) + payload
    return RECORD.pack(len(payload) + 1, zlib.crc32(body)) + body


def scan(data: bytes, path: Path) -> Scan:
    """Read a whole segment. Raises JournalCorrupt for a bad header; a bad record is told in the result."""
    header = decode_header(data, path)
    records: list[Record] = []
    offset = HEADER.size
    sequence = header.first_sequence
    while True:
        found = _record_at(data, offset, sequence)
        if isinstance(found, str):
            damaged = bool(found) and _any_record_after(data, offset + 1, sequence)
            return Scan(header, records, offset, found, damaged)
        records.append(found)
        offset = found.end
        sequence += 1


def _record_at(data: bytes, offset: int, sequence: int) -> Record | str:
    """The record there; else what is wrong, which is nothing ("") behind the last one."""
    start = offset + RECORD.size
    if start > len(data):
        return "" if not data[offset:].strip(b"\0") else "a record's head is cut short"
    length, crc = RECORD.unpack_from(data, offset)
    if length == 0:
        return "" if _zeros(data, offset) else "a record's length is zero, but data follow"
    end = start + SEQUENCE_BYTES + length
    if end > len(data):
        return "a record reaches beyond the segment"
    body = data[start:end]
    if zlib.crc32(body) != crc:
        return "a record does not check"
    found, kind = _SEQUENCE_KIND.unpack_from(body)
    if found != sequence:
        return f"record {found} stands where {sequence} belongs"
    if kind not in (Kind.PAYLOAD, Kind.CLEAN_END):
        return f"record {found} is of an unknown kind"
    return Record(found, Kind(kind), body[_SEQUENCE_KIND.size :], offset, end)


def _zeros(data: bytes, offset: int) -> bool:
    return data.count(0, offset) == len(data) - offset


def _any_record_after(data: bytes, offset: int, sequence: int) -> bool:
    return next(_records_after(data, offset, sequence), None) is not None


def _records_after(data: bytes, offset: int, sequence: int) -> Iterator[int]:
    """Offsets, at any alignment, of whole records with later sequences."""
    last = len(data.rstrip(b"\0")) - RECORD_OVERHEAD + 1
    for place in range(offset, last + 1):
        if place + _LENGTH_CRC_SEQUENCE.size > len(data):
            return
        length, crc, found = _LENGTH_CRC_SEQUENCE.unpack_from(data, place)
        end = place + RECORD.size + SEQUENCE_BYTES + length
        if length and end <= len(data) and sequence < found < sequence + _RESYNC_WINDOW:
            if zlib.crc32(data[place + RECORD.size : end]) == crc:
                yield place


def _corrupt(path: Path, offset: int, what: str) -> JournalCorrupt:
    return corrupt(path, offset, what)


def corrupt(path: Path, offset: int, what: str) -> JournalCorrupt:
    """The error for damage that is no torn tail."""
    return JournalCorrupt(
        f"damage at byte {offset}: {what}.",
        field=str(path),
        kept="Nothing was changed.",
        hint="Keep a copy of the directory, then see: agentctl journal verify, agentctl journal repair.",
    )
