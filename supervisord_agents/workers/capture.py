"""What functions print: descriptors 1 and 2 of the worker lead into pipes, whose content becomes the log of the running task."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable

READ_BYTES = 64 * 1024
DRAIN_S = 1.0
Emit = Callable[[str, bytes], None]


class Capture:
    """Redirects descriptors 1 and 2. `emit` is called with `stdout` or `stderr`, and bytes, by one thread at a time."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._streams: dict[int, str] = {}
        self._write_ends: dict[int, int] = {}
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            read_end, write_end = os.pipe()
            os.set_blocking(read_end, False)
            self._streams[read_end] = name
            self._write_ends[descriptor] = write_end
        self.reset()
        threading.Thread(target=self._pump, name="capture", daemon=True).start()

    def reset(self) -> None:
        """Whatever a function did to its standard streams, they are as new."""
        for descriptor, write_end in self._write_ends.items():
            os.dup2(write_end, descriptor)
        sys.stdout = _text_stream(1)
        sys.stderr = _text_stream(2)

    def drain(self) -> None:
        """Emit all that was printed before this call. Bounded, should somebody go on printing."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        deadline = time.monotonic() + DRAIN_S
        with self._lock:
            while self._read_once() and time.monotonic() < deadline:
                pass

    def _pump(self) -> None:
        while True:
            select.select(list(self._streams), [], [])
            with self._lock:
                self._read_once()

    def _read_once(self) -> bool:
        """One piece of each stream; False if there was none."""
        found = False
        for read_end, name in self._streams.items():
            with contextlib.suppress(BlockingIOError):
                data = os.read(read_end, READ_BYTES)
                found = True
                self._emit(name, data)
        return found


def _text_stream(descriptor: int) -> io.TextIOWrapper:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
