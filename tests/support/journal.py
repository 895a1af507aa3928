"""File systems for journal tests: one that fails at a chosen call, and one that forgets what was not synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisord_agents.journal.files import Files
from supervisord_agents.journal.journal import Journal
from supervisord_agents.journal.recovery import Recovered

SEGMENT_BYTES = 4096
RESERVE_BYTES = 2048
BLOCK_BYTES = 512
"""What a disk writes whole or not at all."""


class Crash(Exception):
    """The process ends here."""


class StepFiles(Files):
    """The real file system, until `fail` says otherwise: it is asked before every call, with the call's number and name."""

    def __init__(self, fail: Callable[[int, str], BaseException | None] | None = None) -> None:
        self.fail = fail
        self.calls: list[str] = []

    def _step(self, name: str) -> None:
        self.calls.append(name)
        error = self.fail(len(self.calls), name) if self.fail else None
        if error is not None:
            raise error

    def create(self, path: Path, mode: int = 0o600) -> int:
        self._step("create")
        return super().create(path, mode)

    def open(self, path: Path) -> int:
        self._step("open")
        return super().open(path)

    def allocate(self, descriptor: int, size: int) -> None:
        self._step("allocate")
        super().allocate(descriptor, size)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        try:
            self._step("write")
        except BaseException:
            # A write that fails has often written a part.
            super().write(descriptor, data[: len(data) // 2], offset)
            raise
        super().write(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate")
        super().truncate(descriptor, size)

    def sync_data(self, descriptor: int) -> None:
        self._step("sync_data")
        super().sync_data(descriptor)

    def sync(self, descriptor: int) -> None:
        self._step("sync")
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove")
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._step("sync_directory")
        super().sync_directory(path)


def lose_all(inode: int, block: int) -> bool:
    """The worst disk: nothing reaches it but by a sync."""
    return True


class ForgetfulFiles(StepFiles):
    """Knows what a loss of power would leave: names as of their last sync, and of contents all that was synced.

    What was written since may be there or not, block by block in any combination, and so may a change of size.
    """

    def __init__(self, fail: Callable[[int, str], BaseException | None] | None = None) -> None:
        super().__init__(fail)
        self._synced: dict[int, bytes] = {}
        self._written: dict[int, bytes] = {}
        self._names: dict[str, int] = {}

    def create(self, path: Path, mode: int = 0o600) -> int:
        descriptor = super().create(path, mode)
        inode = os.fstat(descriptor).st_ino
        self._synced[inode] = self._written[inode] = b""
        return descriptor

    def allocate(self, descriptor: int, size: int) -> None:
        super().allocate(descriptor, size)
        self._changed(descriptor)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        try:
            super().write(descriptor, data, offset)
        finally:
            self._changed(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self._changed(descriptor)

    def sync_data(self, descriptor: int) -> None:
        super().sync_data(descriptor)
        self._kept(descriptor)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._kept(descriptor)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        entries = list(os.scandir(path))
        if not any(entry.is_dir() for entry in entries):  # the journal's own, not that above it
            self._names = {entry.name: entry.inode() for entry in entries}

    def leave(self, target: Path, lose: Callable[[int, int], bool] = lose_all) -> None:
        """Lay down what would be left; `lose` says of each changed block of a file, and of -1, its size, if it did not last."""
        target.mkdir()
        for name, inode in self._names.items():
            if inode in self._synced:
                (target / name).write_bytes(self._left(inode, lose))

    def _left(self, inode: int, lose: Callable[[int, int], bool]) -> bytes:
        before, after = self._synced[inode], self._written[inode]
        longest = max(len(before), len(after))
        old, new = before.ljust(longest, b"\0"), after.ljust(longest, b"\0")
        data = bytearray(new)
        for block, start in enumerate(range(0, longest, BLOCK_BYTES)):
            place = slice(start, start + BLOCK_BYTES)
            if old[place] != new[place] and lose(inode, block):
                data[place] = old[place]
        size = len(before) if len(before) != len(after) and lose(inode, -1) else len(after)
        return bytes(data[:size])

    def _changed(self, descriptor: int) -> None:
        info = os.fstat(descriptor)
        self._written[info.st_ino] = os.pread(descriptor, info.st_size, 0)

    def _kept(self, descriptor: int) -> None:
        self._changed(descriptor)
        inode = os.fstat(descriptor).st_ino
        self._synced[inode] = self._written[inode]


class SmallDisk(Files):
    """The real file system with room for `capacity()` bytes of files in a directory; None: as much as there is.

    `sync_fails()` makes every sync of data fail as a broken disk does.
    """

    def __init__(self, capacity: Callable[[], int | None], sync_fails: Callable[[], bool] = lambda: False) -> None:
        self._capacity = capacity
        self._sync_fails = sync_fails

    def create(self, path: Path, mode: int = 0o600) -> int:
        self._check(path.parent, 1)
        return super().create(path, mode)

    def allocate(self, descriptor: int, size: int) -> None:
        self._check_growth(descriptor, size)
        super().allocate(descriptor, size)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self._check_growth(descriptor, offset + len(data))
        super().write(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        if self._sync_fails():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_data(descriptor)

    def _check_growth(self, descriptor: int, size: int) -> None:
        growth = size - os.fstat(descriptor).st_size
        if growth > 0:
            self._check(Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent, growth)

    def _check(self, directory: Path, growth: int) -> None:
        capacity = self._capacity()
        used = sum(entry.stat().st_size for entry in os.scandir(directory))
        if capacity is not None and used + growth > capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_journal(directory: Path, **options: Any) -> tuple[Journal, Recovered]:
    """A journal of small segments."""
    options = {"segment_bytes": SEGMENT_BYTES, "reserve_bytes": RESERVE_BYTES, "max_record_bytes": 65536, **options}
    return Journal.open(directory, **options)


def fill(journal: Journal, payloads: list[bytes], batch: int = 1) -> None:
    """Append them, and flush after every `batch` of them."""
    for start in range(0, len(payloads), batch):
        for payload in payloads[start : start + batch]:
            journal.append(payload)
        journal.flush()


def payloads(recovered: Recovered) -> list[bytes]:
    """Those of the records, in order."""
    return [payload for _, payload in recovered.records]
