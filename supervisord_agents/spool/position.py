"""How much of an attempt's output is in its log: exact also after the daemon was killed between two writes.

What is about to be added is written down first, with the size that the log will have: the size that it has then tells what became
of it. It is not synced, for a power cut ends the attempt as well.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

_RECORD = struct.Struct("<QQQ")


class Position:
    """Of the attempt that runs, in a file of its own. A file that cannot be read or written counts as the beginning."""

    def __init__(self, path: Path) -> None:
        self._attempt = self._heard = self._size = 0
        self._descriptor = -1
        with contextlib.suppress(OSError, struct.error):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._attempt, self._heard, self._size = _RECORD.unpack(os.pread(self._descriptor, _RECORD.size, 0))

    def heard(self, attempt: int, log_size: int) -> int:
        """Bytes of the attempt's output in a log of this size."""
        if attempt != self._attempt:
            return 0
        return self._heard - max(0, self._size - log_size)

    def intend(self, attempt: int, heard: int, log_size: int) -> None:
        """After the next write to the log, which gives it this size, `heard` bytes of the attempt's output are in it."""
        self._attempt, self._heard, self._size = attempt, heard, log_size
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, _RECORD.pack(attempt, heard, log_size), 0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
