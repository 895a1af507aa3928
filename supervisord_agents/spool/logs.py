"""Task logs: `logs/task_<id>.log`, append-only, capped.

Bytes are what the worker wrote, unchanged; lines of the supervisor begin with `[supervisor] `. Only terminals get them escaped.
"""

from __future__ import annotations

import os
from pathlib import Path

NOTICE_PREFIX = b"[supervisor] "


class LogStore:
    """The logs of one state directory; `limit_bytes` a task, over all its attempts."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._open: dict[str, _OpenLog] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, task: str) -> Path:
        return self.directory / f"task_{task}.log"

    def append(self, task: str, data: bytes) -> None:
        """Add to the log. Over the limit it is dropped, and the log says so once; a full disk drops it too."""
        log = self._open.get(task)
        if log is None:
            log = self._open[task] = _OpenLog(self.path(task), self.limit_bytes)
        log.append(data)

    def notice(self, task: str, text: str) -> None:
        """A line of the supervisor's own."""
        self.append(task, NOTICE_PREFIX + text.replace("\n", " ").encode() + b"\n")

    def close(self, task: str) -> None:
        """The attempt is over: give its descriptor back."""
        log = self._open.pop(task, None)
        if log is not None:
            log.close()

    def read(self, task: str, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        """At most `limit_bytes` from `offset`, and the size of the log."""
        try:
            with open(self.path(task), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(offset)
                return file.read(limit_bytes), size
        except FileNotFoundError:
            return b"", 0

    def close_all(self) -> None:
        for task in list(self._open):
            self.close(task)


class _OpenLog:
    """One log being written; the cut is announced in the file itself."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        self._full = self._size > limit_bytes

    def append(self, data: bytes) -> None:
        if self._full:
            return
        room = self._limit_bytes - self._size
        if len(data) > room:
            self._full = True
            data = data[: max(room, 0)] + b"\n" + NOTICE_PREFIX + f"log cut at {self._limit_bytes} bytes\n".encode()
        try:
            self._size += os.write(self._descriptor, data)
        except OSError:
            self._full = True

    def close(self) -> None:
        os.close(self._descriptor)
