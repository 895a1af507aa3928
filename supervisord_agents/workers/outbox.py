"""The outbox: a file in which a worker leaves the end of its attempt for a daemon that comes back.

It holds one record, `u32 length | u32 crc32 | payload` (little-endian), with the payload of the `result` or `error` frame; the
next attempt of the same worker overwrites it. The worker has it as an inherited descriptor, and only the runtime keeps it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zlib
from pathlib import Path

import msgspec

from supervisord_agents.errors import ProtocolError
from supervisord_agents.wire import frames

HEADER = struct.Struct("<II")


class Outbox:
    """The worker's side."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def put(self, payload: bytes) -> None:
        """Keep the end of an attempt. It outlives this process and the daemon, not the machine; on a full disk it is not kept."""
        record = memoryview(HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        at = 0
        with contextlib.suppress(OSError):
            while at < len(record):
                at += os.pwrite(self._descriptor, record[at:], at)


def read(path: Path) -> frames.End | None:
    """What a worker left in its outbox, None if nothing; raises OSError, or ProtocolError for what is no whole record."""
    # Workers of older versions had a directory here that their tasks could write: nothing in it is trusted.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ProtocolError("it is no regular file.")
        header = file.read(HEADER.size)
        if not header:
            return None
        if len(header) < HEADER.size:
            raise ProtocolError("it was cut off.")
        length, checksum = HEADER.unpack(header)
        if length > frames.MAX_FRAME_BYTES:
            raise ProtocolError(f"it says that it holds {length} bytes.")
        payload = file.read(length)
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise ProtocolError("it was cut off, or damaged.")
    try:
        end: frames.End = frames.end_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"it holds no end of an attempt: {error}.") from error
    return end
