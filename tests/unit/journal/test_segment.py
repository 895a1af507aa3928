"""The segment format: whatever happens to the bytes, what is read is a beginning of what was written, or it is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.errors import JournalCorrupt
from supervisord_agents.journal.segment import (
    HEADER,
    Header,
    Kind,
    encode_header,
    encode_record,
    records_after,
    scan,
    segment_name,
)

SEGMENT = Header(epoch=(3 << 32) | 0x5EED, first_sequence=41)
PATH = Path(segment_name(SEGMENT))
PAYLOADS = [b"payload %d " % number + bytes(range(number % 7)) for number in range(36)]


def build(payloads: list[bytes] = PAYLOADS, header: Header = SEGMENT, batch: int = 1) -> bytes:
    """A segment of records that were synced `batch` at a time."""
    records = [
        encode_record(header.first_sequence + index, payload, header.checksum, index=index % batch)
        for index, payload in enumerate(payloads)
    ]
    return encode_header(header) + b"".join(records)


def ends(payloads: list[bytes] = PAYLOADS) -> list[int]:
    """Where each record ends."""
    return [len(build(payloads[:count])) for count in range(1, len(payloads) + 1)]


def read(data: bytes) -> list[bytes]:
    return [payload for _, payload in scan(data, PATH).reading.payloads]


def test_what_was_written_is_read() -> None:
    found = scan(build() + bytes(500), PATH)
    assert found.header == SEGMENT
    assert found.reading.payloads == [(41 + index, payload) for index, payload in enumerate(PAYLOADS)]
    assert (found.reading.end, found.reading.bad, found.damaged) == (len(build()), "", False)


def test_a_clean_end_counts_as_a_record_but_is_no_payload() -> None:
    data = build(PAYLOADS[:2]) + encode_record(43, b"", SEGMENT.checksum, Kind.CLEAN_END)
    reading = scan(data, PATH).reading
    assert (len(reading.payloads), reading.clean_ends, reading.next_sequence) == (2, [43], 44)


@pytest.mark.parametrize("zeros", [0, 300], ids=["cut", "preallocated"])
def test_a_torn_tail_at_every_byte(zeros: int) -> None:
    data, boundaries = build(), ends()
    for size in range(HEADER.size, len(data)):
        found = scan(data[:size] + bytes(zeros), PATH)
        whole = sum(end <= size for end in boundaries)
        read = [payload for _, payload in found.reading.payloads]
        # With zeros behind it, a record that itself ended in zeros may be whole.
        assert read == PAYLOADS[:whole] or (zeros and read == PAYLOADS[: whole + 1])
        assert not found.damaged
        assert found.reading.end in (HEADER.size, *boundaries)


@pytest.mark.parametrize("size", range(HEADER.size))
def test_a_header_cut_short_is_refused(size: int) -> None:
    with pytest.raises(JournalCorrupt, match="header is cut short"):
        scan(build()[:size], PATH)


@pytest.mark.parametrize("batch", [1, 4, 36])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flip_of_every_byte_is_found(flip: int, batch: int) -> None:
    data = bytearray(build(batch=batch) + bytes(64))
    last_batch = ([HEADER.size, *ends()])[-1 - batch]
    for place in range(len(data)):
        data[place] ^= flip
        try:
            found = scan(bytes(data), PATH)
        except JournalCorrupt:
            assert place < HEADER.size
        else:
            payloads = [payload for _, payload in found.reading.payloads]
            assert found.reading.bad
            assert payloads == PAYLOADS[: len(payloads)]
            # Only what lies in the last batch, or behind it, can pass for a torn tail.
            assert found.damaged == (place < last_batch)
        data[place] ^= flip


@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_behind_the_tail_is_never_a_record(garbage: bytes) -> None:
    found = scan(build() + garbage, PATH)
    assert [payload for _, payload in found.reading.payloads] == PAYLOADS
    assert bool(found.reading.bad) == bool(garbage.strip(b"\0"))
    assert not found.damaged


@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_never_raise_anything_but_corrupt(data: bytes) -> None:
    with pytest.raises(JournalCorrupt):
        scan(data, PATH)
    assert read(encode_header(SEGMENT) + data) == []


def test_a_record_of_another_segment_does_not_check() -> None:
    other = Header(epoch=SEGMENT.epoch + 1, first_sequence=SEGMENT.first_sequence)
    foreign = encode_record(41 + len(PAYLOADS), b"foreign", other.checksum)
    found = scan(build() + foreign, PATH)
    assert [payload for _, payload in found.reading.payloads] == PAYLOADS
    assert not found.damaged


def test_a_record_forged_inside_a_payload_is_not_found_behind_damage() -> None:
    guess = Header(epoch=SEGMENT.epoch ^ 1, first_sequence=SEGMENT.first_sequence)
    evil = b"".join(encode_record(sequence, b"evil", guess.checksum) for sequence in range(41, 60))
    data = bytearray(build([b"good", evil, b"good too"]))
    data[ends([b"good", evil])[0] + 8] ^= 1
    behind = list(records_after(bytes(data), ends([b"good"])[-1], 41, SEGMENT))
    assert [record.payload for record in behind] == [b"good too"]


def test_a_repeated_record_is_refused() -> None:
    data = build() + encode_record(41 + len(PAYLOADS) - 1, PAYLOADS[-1], SEGMENT.checksum)
    assert "stands where" in scan(data, PATH).reading.bad


def test_an_unknown_kind_is_refused_and_not_cut() -> None:
    found = scan(build([]) + encode_record(41, b"x", SEGMENT.checksum, 9), PATH)
    assert "unknown kind, 9" in found.reading.bad


@pytest.mark.parametrize("after", [0, 41, 42])
def test_a_hole_that_leads_back_is_damage(after: int) -> None:
    hole = encode_record(42, struct.pack("<Q", after), SEGMENT.checksum, Kind.HOLE)
    found = scan(build(PAYLOADS[:1]) + hole + bytes(32), PATH)
    assert found.damaged
    assert f"record 42 is a hole that leads back, to {after}" in found.reading.bad
    assert found.reading.next_sequence == 42
    assert found.damaged


@given(lost=st.sets(st.integers(min_value=0, max_value=60)), batch=st.integers(min_value=1, max_value=36))
def test_any_blocks_of_the_last_batch_may_be_lost(lost: set[int], batch: int) -> None:
    """A loss of power in its sync: pages reach the disk in any order. What was synced before is read, and nothing refused."""
    last = (len(PAYLOADS) - 1) // batch * batch
    start = [HEADER.size, *ends()][last]
    data = bytearray(build(batch=batch) + bytes(64))
    for block in lost:
        begin, end = max(block * 32, start), (block + 1) * 32
        if start < end:
            data[begin:end] = bytes(len(data[begin:end]))
    found = scan(bytes(data), PATH)
    payloads = [payload for _, payload in found.reading.payloads]
    assert payloads == PAYLOADS[: len(payloads)]
    assert len(payloads) >= last
    assert not found.damaged


@given(batch=st.integers(min_value=1, max_value=18), record=st.integers(min_value=0, max_value=35))
def test_a_record_lost_from_a_batch_before_the_last_is_damage(batch: int, record: int) -> None:
    start, end = [HEADER.size, *ends()][record : record + 2]
    data = bytearray(build(batch=batch))
    data[start:end] = bytes(end - start)
    assert scan(bytes(data), PATH).damaged == (record < (len(PAYLOADS) - 1) // batch * batch)


def test_a_segment_under_another_name_is_refused() -> None:
    with pytest.raises(JournalCorrupt, match="another name"):
        scan(build(), Path(segment_name(Header(SEGMENT.epoch, 42))))


def test_a_newer_format_is_named() -> None:
    checked = struct.pack("<IQQ", 2, *SEGMENT)
    data = struct.pack("<8sIIQQ", b"ASUPWAL1", 2, zlib.crc32(checked), *SEGMENT)
    with pytest.raises(JournalCorrupt, match="format 2, this version reads up to 1"):
        scan(data, PATH)
