"""Framing: whatever way the bytes are cut, the payloads are those that were sent; too long a frame is refused at its header."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisord_agents.errors import ErrorCode, ProtocolError
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES, HEADER_BYTES, FrameReader, frame

LIMIT = 64
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
payloads = st.lists(st.binary(max_size=LIMIT), max_size=8)
cuts = st.lists(st.integers(min_value=0, max_value=8 * (LIMIT + HEADER_BYTES)), max_size=12)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    """The data cut at these places; some pieces may be empty."""
    edges = [0, *sorted(min(place, len(data)) for place in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_a_frame_is_its_length_in_little_endian_and_its_payload() -> None:
    assert frame(b"abc") == b"\x03\x00\x00\x00abc"
    assert frame(b"") == b"\x00\x00\x00\x00"
    assert frame(bytes(0x010203))[:HEADER_BYTES] == b"\x03\x02\x01\x00"


@unhurried
@given(payloads, cuts)
def test_any_cut_of_the_stream_gives_back_the_payloads_in_order(sent: list[bytes], at: list[int]) -> None:
    reader = FrameReader(LIMIT)
    data = b"".join(frame(payload, LIMIT) for payload in sent)
    assert [payload for piece in pieces(data, at) for payload in reader.feed(piece)] == sent
    assert not reader.partial


@unhurried
@given(payloads)
def test_byte_by_byte_each_payload_comes_with_its_last_byte(sent: list[bytes]) -> None:
    reader = FrameReader(LIMIT)
    for payload in sent:
        *before, last = (bytes([byte]) for byte in frame(payload, LIMIT))
        assert [[*reader.feed(byte)] for byte in before] == [[]] * len(before)
        assert [*reader.feed(last)] == [payload]


@unhurried
@given(st.binary(max_size=LIMIT), st.data())
def test_a_truncated_frame_is_kept_and_known_as_such(payload: bytes, data: st.DataObject) -> None:
    whole = frame(payload, LIMIT)
    cut = data.draw(st.integers(min_value=1, max_value=len(whole) - 1))
    reader = FrameReader(LIMIT)
    assert [*reader.feed(whole[:cut])] == []
    assert reader.partial
    assert [*reader.feed(whole[cut:])] == [payload]
    assert not reader.partial


@unhurried
@given(st.integers(min_value=LIMIT + 1, max_value=2**32 - 1), st.binary(max_size=LIMIT), payloads)
def test_too_long_a_frame_is_refused_at_its_header_after_the_frames_before_it(
    length: int, rest: bytes, good: list[bytes]
) -> None:
    reader = FrameReader(LIMIT)
    data = b"".join(frame(payload, LIMIT) for payload in good) + struct.pack("<I", length) + rest
    found: list[bytes] = []
    with pytest.raises(ProtocolError, match=f"{length} bytes, the limit is {LIMIT}") as caught:
        found.extend(reader.feed(data))
    assert found == good
    assert caught.value.code is ErrorCode.INVALID


def test_payloads_that_nobody_took_come_with_the_next_data() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(frame(b"1") + frame(b"2"))
    assert next(reader.feed(b"")) == b"1"
    assert [*reader.feed(frame(b"3"))] == [b"2", b"3"]


def test_the_limit_may_change_on_the_way() -> None:
    reader = FrameReader(LIMIT)
    reader.max_bytes = 2 * LIMIT
    assert [*reader.feed(frame(bytes(2 * LIMIT)))] == [bytes(2 * LIMIT)]


@unhurried
@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_gives_payloads_or_a_typed_error_and_never_more_than_was_sent(garbage: list[bytes]) -> None:
    reader = FrameReader(LIMIT)
    found = 0
    try:
        for piece in garbage:
            for payload in reader.feed(piece):
                assert len(payload) <= LIMIT
                found += HEADER_BYTES + len(payload)
    except ProtocolError:
        return
    assert found <= sum(map(len, garbage))


def test_the_limit_itself_is_allowed_in_both_directions_and_one_more_is_not() -> None:
    assert [*FrameReader(LIMIT).feed(frame(bytes(LIMIT), LIMIT))] == [bytes(LIMIT)]
    with pytest.raises(ProtocolError, match="65 bytes, the limit is 64") as caught:
        frame(bytes(LIMIT + 1), LIMIT)
    assert "file" in caught.value.hint


def test_the_default_limit_holds_at_both_ends() -> None:
    largest = bytes(DEFAULT_MAX_FRAME_BYTES)
    assert [*FrameReader().feed(frame(largest))] == [largest]
    with pytest.raises(ProtocolError):
        frame(largest + b"x")
    with pytest.raises(ProtocolError):
        next(FrameReader().feed(struct.pack("<I", DEFAULT_MAX_FRAME_BYTES + 1)))
