"""Task logs: `logs/task_<id>.log`, append-only, capped.

Bytes are what the worker wrote, unchanged; lines of the supervisor begin with `[supervisor] `. Only terminals get them escaped.
A log that cannot be written is said once and costs nothing else. The supervisor's lines may be written a little later, many at a
time: what reads or adds to a log by way of this store finds them in their place. While an attempt runs, `logs/.heard/<id>` tells
how much of its output the log has (position.py), so that a daemon that takes the attempt over goes on where the one before was
killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container
from pathlib import Path

import structlog

from supervisord_agents.journal.files import REAL_FILES
from supervisord_agents.spool.position import Position

NOTICE_PREFIX = b"[supervisor] "
NOTICE_ROOM_BYTES = 64 * 1024
"""Beyond the limit, for the supervisor's own lines: how an attempt ended is told even in a log that its worker has filled."""
MAX_OPEN = 64
"""Descriptors; the log that was written least recently gives its own back."""
log = structlog.get_logger()
Later = Callable[[Callable[[], None]], object]


def at_once(write: Callable[[], None]) -> None:
    write()


class LogStore:
    """The logs of one state directory; `limit_bytes` a task, over all its attempts.

    `later` is given what writes the supervisor's lines, to be called when nothing is more urgent.
    """

    def __init__(self, directory: Path, limit_bytes: int, later: Later = at_once) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._later = later
        self._notices: dict[str, list[str]] = {}
        """Lines that are not written yet, by task."""
        self._over: set[str] = set()
        """Tasks of which a log is to be closed after these."""
        self._open: dict[str, _OpenLog] = {}
        """By task, least recently written first."""
        self._unwritable: set[str] = set()
        self._heard = directory / ".heard"
        self._positions: set[str] = set()
        """Tasks of which a position is kept."""
        self._heard.mkdir(parents=True, exist_ok=True)

    def path(self, task: str) -> Path:
        return self.directory / f"task_{task}.log"

    def hear(self, task: str, attempt: int, offset: int, data: bytes) -> bytes:
        """Add output of an attempt that `offset` bytes came before, and give what is new of it.

        Over the limit it is dropped, and the log says so once; a full disk drops it too.
        """
        self._write_notices_of(task)
        opened = self._opened(task)
        if opened is None:
            return data
        heard = self._position(task, opened).heard(attempt, opened.size)
        if offset > heard:
            self.notice(task, f"{offset - heard} bytes of output were lost with an earlier daemon")
            self._write_notices_of(task)
        new = data[max(0, heard - offset) :]
        if new:
            opened.append(new, attempt, offset + len(data))
        return new

    def heard(self, task: str, attempt: int) -> int:
        """How many bytes of the output of an attempt the log has taken."""
        self._write_notices_of(task)
        opened = self._opened(task)
        return self._position(task, opened).heard(attempt, opened.size) if opened is not None else 0

    def forget_positions(self, keep: Container[str]) -> None:
        """Remove what is kept of attempts that no longer run."""
        for path in self._heard.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def notice(self, task: str, text: str) -> None:
        """A line of the supervisor's own."""
        first = not self._notices
        self._notices.setdefault(task, []).append(text)
        if first:
            self._later(self.write_notices)

    def write_notices(self) -> None:
        """Write all lines of the supervisor's own that are not written yet."""
        for task in list(self._notices):
            self._write_notices_of(task)

    def _write_notices_of(self, task: str) -> None:
        texts = self._notices.pop(task, ())
        opened = self._opened(task) if texts else None
        if opened is not None:
            for text in texts:
                opened.notice(NOTICE_PREFIX + text.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n")
        if task in self._over:
            self._over.discard(task)
            self._close(task)

    def close(self, task: str) -> None:
        """The attempt is over: give its descriptor back."""
        if task in self._notices:
            self._over.add(task)
        else:
            self._close(task)

    def _close(self, task: str) -> None:
        self._unwritable.discard(task)
        opened = self._open.pop(task, None)
        if opened is not None:
            opened.close()
        if task in self._positions:
            self._positions.discard(task)
            (self._heard / task).unlink(missing_ok=True)

    def read(self, task: str, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        """At most `limit_bytes` from `offset`, and the size of the log."""
        self._write_notices_of(task)
        try:
            with open(self.path(task), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(min(offset, size))
                return file.read(limit_bytes), size
        except FileNotFoundError:
            return b"", 0

    def size(self, task: str) -> int:
        """Bytes of the task's log; 0 without one. May run in a thread."""
        try:
            return self.path(task).stat().st_size
        except OSError:
            return 0

    def remove(self, task: str) -> None:
        """Of a task that is forgotten. May run in a thread; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            self.path(task).unlink(missing_ok=True)

    def sync_names(self) -> None:
        """Make removals durable. Raises OSError."""
        REAL_FILES.sync_directory(self.directory)

    def close_all(self) -> None:
        """Give all descriptors back; what is known of running attempts stays."""
        self.write_notices()
        while self._open:
            self._open.popitem()[1].close()

    def _position(self, task: str, opened: _OpenLog) -> Position:
        if opened.position is None:
            opened.position = Position(self._heard / task)
            self._positions.add(task)
        return opened.position

    def _opened(self, task: str) -> _OpenLog | None:
        opened = self._open.pop(task, None)
        if opened is None:
            if task in self._unwritable:
                return None
            try:
                opened = _OpenLog(self.path(task), self.limit_bytes)
            except OSError as error:
                log.warning("log_not_written", task=task, error=str(error))
                self._unwritable.add(task)
                return None
            if len(self._open) >= MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
        self._open[task] = opened
        return opened


class _OpenLog:
    """One log being written; the cut is announced in the file itself."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self._descriptor).st_size
        self.position: Position | None = None
        self._full = self.size > limit_bytes
        self._in_line = self.size > 0 and os.pread(self._descriptor, 1, self.size - 1) != b"\n"

    def append(self, data: bytes, attempt: int, heard: int) -> None:
        """Output of an attempt, with which `heard` bytes of it are here."""
        assert self.position is not None
        if self._full:
            self.position.intend(attempt, heard, self.size)
            return
        room = self._limit_bytes - self.size
        if len(data) > room:
            self._full = True
            data = data[: max(room, 0)] + b"\n" + NOTICE_PREFIX + f"log cut at {self._limit_bytes} bytes\n".encode()
        expected = self.size + len(data)
        self.position.intend(attempt, heard, expected)
        self._write(data)
        if self.size != expected:  # what had no room is dropped, not asked for again
            self.position.intend(attempt, heard, self.size)

    def notice(self, line: bytes) -> None:
        """On a line of its own, also where the worker has not ended his."""
        if self._in_line:
            line = b"\n" + line
        if self.size + len(line) <= self._limit_bytes + NOTICE_ROOM_BYTES:
            self._write(line)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
            self.size += written
            self._in_line = data[written - 1 : written] != b"\n"
        except OSError:
            self._full = True

    def close(self) -> None:
        os.close(self._descriptor)
        if self.position is not None:
            self.position.close()
