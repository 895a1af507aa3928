"""Length-prefixed frames: `u32 little-endian length | payload`. Sans-IO."""

from __future__ import annotations

import struct

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

    `feed` raises ProtocolError as soon as a header announces more than `max_bytes`, before any of that payload is kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by `data`, in order."""
        buffer = self._buffer
        buffer += data
        payloads = []
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self.max_bytes:
                raise ProtocolError(f"the peer announced a frame of {length} bytes, the limit is {self.max_bytes}.")
            end = start + HEADER_BYTES + length
            if len(buffer) < end:
                break
            payloads.append(bytes(buffer[start + HEADER_BYTES : end]))
            start = end
        if start:
            del buffer[:start]
        return payloads

    @property
    def partial(self) -> bool:
        """True while an incomplete frame is held: the end of the stream now would be a truncation."""
        return bool(self._buffer)
