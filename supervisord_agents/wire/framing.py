"""Length-prefixed frames: `u32 little-endian length | payload`. Sans-IO."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from supervisord_agents.errors import ProtocolError

DEFAULT_MAX_FRAME_BYTES = 8 * 1024 * 1024
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size


def frame(payload: bytes, max_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> bytes:
    """The payload with its length before it; raises ProtocolError if it is larger than the peer accepts."""
    if len(payload) > max_bytes:
        raise ProtocolError(
            f"the frame is {len(payload)} bytes, the limit is {max_bytes}.",
            hint="Pass large data by file and name the file instead.",
        )
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Collects bytes and gives back whole payloads.

    `feed` raises ProtocolError as soon as a header announces more than `max_bytes`, before any of that payload is kept, but after
    the payloads before it. `max_bytes` may be changed at any time.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads completed by `data`, in order. Those not taken from the iterator come with the next data."""
        if not self._buffer and len(data) >= HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(data)
            if len(data) == HEADER_BYTES + length and length <= self.max_bytes:
                return iter((data[HEADER_BYTES:],))  # the usual: one call, or one answer, at a time
        self._buffer += data
        return self._finished()

    def _finished(self) -> Iterator[bytes]:
        buffer = self._buffer
        while len(buffer) >= HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > self.max_bytes:
                raise ProtocolError(f"the peer announced a frame of {length} bytes, the limit is {self.max_bytes}.")
            end = HEADER_BYTES + length
            if len(buffer) < end:
                return
            payload = bytes(buffer[HEADER_BYTES:end])
            del buffer[:end]  # moves no bytes: a bytearray has an offset for this
            yield payload

    @property
    def partial(self) -> bool:
        """True while an incomplete frame is held: the end of the stream now would be a truncation."""
        return bool(self._buffer)
