"""The format of a segment: a header, then records, then zeros.

    header   magic "ASUPWAL1" | u32 version | u32 crc32 of the rest | u64 epoch | u64 first sequence
    record   u32 length | u32 crc32 of what follows | u64 sequence | u32 index in batch | u8 kind | payload

Little-endian; `length` counts kind and payload. Sequences rise by one from record to record and from segment to segment. A
segment is preallocated and reads as zeros behind its last record. Kind 1 is a payload; kind 2 marks an orderly end of the daemon
and has none; kind 3 marks a hole that a repair left, and holds the sequence (u64) of the record after it.

A batch is written and synced at once, and only then the next one is written. A loss of power in that moment leaves any of its
blocks and not the others, so whole records may lie behind a hole that is no damage. The index tells: the batch of record f began
with record f - index. If that is later than the record missing at the hole, the hole's batch had been synced, and has been
damaged since. If not, what is behind the hole is part of the same batch, which nobody was told of: a torn tail.

The epoch rises with every start and its lower half is random. A record's checksum starts from the checksum of its segment's
header, so bytes that look like a record check only in the segment they were written for: who chooses a payload cannot forge a
record in it. Epoch and first sequence also make the file's name, so the records of a segment whose header is damaged can be read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.errors import JournalCorrupt
from supervisord_agents.journal.files import REAL_FILES, Files

MAGIC = b"ASUPWAL1"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")
_HEADER_CHECKED = struct.Struct("<IQQ")
_LENGTH_CRC = struct.Struct("<II")
_PLACE_KIND = struct.Struct("<QIB")
_RECORD_HEAD = struct.Struct("<IIQIB")
_NEXT = struct.Struct("<Q")
_PLACE_BYTES = 12
RECORD_OVERHEAD = _RECORD_HEAD.size
_LENGTH_TOP = 3
"""Where the highest byte of a length is."""
_RESYNC_WINDOW = 1 << 32
"""Sequences further ahead than this are no sign of a record behind a damaged one."""
REPAIR_NAME = "repair.new"
"""A segment that a repair has not finished."""
_NAME = re.compile(r"segment-([0-9a-f]{16})-([0-9a-f]{16})\.wal")


class Kind(IntEnum):
    """What a record is."""

    PAYLOAD = 1
    CLEAN_END = 2
    HOLE = 3


_PAYLOAD = int(Kind.PAYLOAD)


class Damage(JournalCorrupt):
    """Damage that is no torn tail: `what` is wrong at `offset` of the file `path`."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(
            f"damage at byte {offset}: {what}.",
            field=str(path),
            kept="Nothing was changed.",
            hint="See what is whole: agentctl journal verify. Then, with a copy made: agentctl journal repair.",
        )
        self.path = path
        self.offset = offset
        self.what = what


class Header(NamedTuple):
    """The beginning of a segment."""

    epoch: int
    first_sequence: int

    @property
    def checksum(self) -> int:
        """What the checksum of each record in the segment starts from."""
        return zlib.crc32(_HEADER_CHECKED.pack(VERSION, self.epoch, self.first_sequence))


class Record(NamedTuple):
    """A record that checked; it lies at `start` to `end` of its segment."""

    sequence: int
    in_batch: int
    """Its index there."""
    kind: int
    payload: bytes
    start: int
    end: int

    def proves_durable(self, sequence: int) -> bool:
        """True if this record was written after a sync of that one."""
        return self.sequence - self.in_batch > sequence


class Reading(NamedTuple):
    """The records from some offset on. `end` is where the next one goes; `bad` says what is wrong there, if anything."""

    payloads: list[tuple[int, bytes]]
    """Sequence and payload. Plain tuples: a million of them are read twice as fast as a million of a class."""
    clean_ends: list[int]
    holes: list[tuple[int, int]]
    """What a repair left out: first and last lost sequence."""
    next_sequence: int
    end: int
    bad: str
    misplaced: bool
    """The record there is whole and wrong all the same: no torn write makes that."""


class Scan(NamedTuple):
    """What a segment holds."""

    header: Header
    reading: Reading
    damaged: bool
    """True: what is bad had been durable, so it is no torn tail."""


def segment_name(header: Header) -> str:
    return f"segment-{header.first_sequence:016x}-{header.epoch:016x}.wal"


def header_of_name(path: Path) -> Header | None:
    """What the name of a segment says; None for another file."""
    match = _NAME.fullmatch(path.name)
    return Header(int(match[2], 16), int(match[1], 16)) if match else None


def segments(directory: Path, files: Files = REAL_FILES) -> list[tuple[Header, Path]]:
    """The segments of a journal with what their names say, by first sequence and then epoch."""
    paths = [directory / name for name in files.names(directory)]
    return [(header, path) for path in paths if (header := header_of_name(path)) is not None]


def encode_header(header: Header) -> bytes:
    return HEADER.pack(MAGIC, VERSION, header.checksum, *header)


def decode_header(data: bytes, path: Path) -> Header:
    """Raises Damage for what is no header, of a newer version, or not of this file."""
    if len(data) < HEADER.size:
        raise Damage(path, 0, "the header is cut short")
    magic, version, crc, epoch, first_sequence = HEADER.unpack_from(data)
    if magic != MAGIC or zlib.crc32(_HEADER_CHECKED.pack(version, epoch, first_sequence)) != crc:
        raise Damage(path, 0, "the header does not check")
    if version > VERSION:
        raise Damage(path, 0, f"it is of format {version}, this version reads up to {VERSION}")
    header = Header(epoch, first_sequence)
    if header != header_of_name(path):
        raise Damage(path, 0, "the header belongs to a file of another name")
    return header


def encode_record(sequence: int, payload: bytes, header_checksum: int, kind: int = Kind.PAYLOAD, index: int = 0) -> bytes:
    """`index` is the record's place in the batch that is synced at once."""
    body = _PLACE_KIND.pack(sequence, index, kind) + payload
    return _LENGTH_CRC.pack(len(payload) + 1, zlib.crc32(body, header_checksum)) + body


def encode_hole(first_lost: int, next_sequence: int, header_checksum: int) -> bytes:
    return encode_record(first_lost, _NEXT.pack(next_sequence), header_checksum, Kind.HOLE)


def scan(data: bytes, path: Path) -> Scan:
    """Read a whole segment. Raises Damage for a bad header; a bad record is told in the result."""
    return scan_records(data, decode_header(data, path))


def scan_records(data: bytes, header: Header) -> Scan:
    """Read the records of a segment, whatever its own header says."""
    reading = read_records(data, HEADER.size, header.first_sequence, header)
    return Scan(header, reading, reading.misplaced or (bool(reading.bad) and _was_durable(data, reading, header)))


def _was_durable(data: bytes, reading: Reading, header: Header) -> bool:
    behind = records_after(data, reading.end + 1, reading.next_sequence, header)
    return any(record.proves_durable(reading.next_sequence) for record in behind)


def read_records(data: bytes, offset: int, sequence: int, header: Header) -> Reading:
    """The records from `offset` on, the first of them numbered `sequence`, up to the first that is not as it should be."""
    payloads: list[tuple[int, bytes]] = []
    clean_ends: list[int] = []
    holes: list[tuple[int, int]] = []
    add, unpack, checksum, start, size = payloads.append, _RECORD_HEAD.unpack_from, zlib.crc32, header.checksum, len(data)
    view = memoryview(data)
    bad = ""
    while offset + RECORD_OVERHEAD <= size:
        length, crc, found, _, kind = unpack(data, offset)
        checked = offset + _LENGTH_CRC.size
        end = checked + _PLACE_BYTES + length
        if not length or end > size or checksum(view[checked:end], start) != crc:
            break
        if found != sequence:
            bad = f"record {found} stands where {sequence} belongs"
            break
        if kind == _PAYLOAD:
            add((found, data[offset + RECORD_OVERHEAD : end]))
        elif kind == Kind.CLEAN_END:
            clean_ends.append(found)
        elif kind == Kind.HOLE and length == 1 + _NEXT.size:
            (after,) = _NEXT.unpack_from(data, offset + RECORD_OVERHEAD)
            if after <= found:
                bad = f"record {found} is a hole that leads back, to {after}"
                break
            holes.append((found, after - 1))
            sequence = after - 1
        else:
            bad = f"record {found} is of an unknown kind, {kind}"
            break
        offset = end
        sequence += 1
    return Reading(payloads, clean_ends, holes, sequence, offset, bad or _what_is_wrong(data, offset), bool(bad))


def _what_is_wrong(data: bytes, offset: int) -> str:
    """Why no record could be read there; nothing if only zeros are left."""
    if data.count(0, offset) == len(data) - offset:
        return ""
    if offset + RECORD_OVERHEAD > len(data):
        return "a record's head is cut short"
    length, _ = _LENGTH_CRC.unpack_from(data, offset)
    if length == 0:
        return "a record's length is zero, but data follow"
    if offset + _LENGTH_CRC.size + _PLACE_BYTES + length > len(data):
        return "a record reaches beyond the segment"
    return "a record does not check"


def records_after(data: bytes, offset: int, sequence: int, header: Header) -> Iterator[Record]:
    """Whole records with later sequences that begin at `offset` or behind, at any alignment; none is inside another."""
    unpack, checksum, salt, size = _RECORD_HEAD.unpack_from, zlib.crc32, header.checksum, len(data)
    view = memoryview(data)
    head = _head_pattern(size, sequence)
    place, used = offset, len(data.rstrip(b"\0"))
    while (match := head.search(data, place + _LENGTH_TOP, used)) is not None:
        place = match.start() - _LENGTH_TOP
        length, crc, found, index, kind = unpack(data, place)
        checked = place + _LENGTH_CRC.size
        end = checked + _PLACE_BYTES + length
        plausible = length and end <= size and sequence < found < sequence + _RESYNC_WINDOW
        if plausible and checksum(view[checked:end], salt) == crc:
            yield Record(found, index, kind, data[place + RECORD_OVERHEAD : end], place, end)
            place, sequence = end, found
        else:
            place += 1


def _head_pattern(size: int, sequence: int) -> re.Pattern[bytes]:
    """Finds where a record's head may be, from the top byte of its length on; a loop over every byte would take seconds.

    The length is less than `size`, the sequence is in the window behind `sequence`, and no kind is 0.
    """
    high = sequence >> 32
    highs = b"|".join(re.escape(struct.pack("<I", part & 0xFFFFFFFF)) for part in (high, high + 1, high + 2))
    return re.compile(b"[\\x00-\\x%02x](?s:.{8})(?:%b)(?s:.{4})[^\\0]" % (min(size >> 24, 0xFF), highs))
