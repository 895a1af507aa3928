"""File systems for journal tests: one that fails at a chosen call, and one that forgets what was not synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisord_agents.journal.files import Files
from supervisord_agents.journal.journal import Journal
from supervisord_agents.journal.recovery import Recovered

SEGMENT_BYTES = 4096
RESERVE_BYTES = 2048


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

    def create(self, path: Path) -> int:
        self._step("create")
        return super().create(path)

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


class ForgetfulFiles(StepFiles):
    """Knows what a loss of power would leave: names and contents as of their last sync."""

    def __init__(self, fail: Callable[[int, str], BaseException | None] | None = None) -> None:
        super().__init__(fail)
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, int] = {}

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._contents[os.fstat(descriptor).st_ino] = b""
        return descriptor

    def sync_data(self, descriptor: int) -> None:
        super().sync_data(descriptor)
        self._synced(descriptor)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._synced(descriptor)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._names = {entry.name: entry.inode() for entry in os.scandir(path)}

    def leave(self, target: Path) -> None:
        """Lay down what would be left."""
        target.mkdir()
        for name, inode in self._names.items():
            if inode in self._contents:
                (target / name).write_bytes(self._contents[inode])

    def _synced(self, descriptor: int) -> None:
        info = os.fstat(descriptor)
        self._contents[info.st_ino] = os.pread(descriptor, info.st_size, 0)


def open_journal(directory: Path, **options: Any) -> tuple[Journal, Recovered]:
    """A journal of small segments."""
    options = {"segment_bytes": SEGMENT_BYTES, "reserve_bytes": RESERVE_BYTES, "max_record_bytes": 65536, **options}
    return Journal.open(directory, **options)


def fill(journal: Journal, payloads: list[bytes]) -> None:
    """Append and flush them one by one."""
    for payload in payloads:
        journal.append(payload)
        journal.flush()


def payloads(recovered: Recovered) -> list[bytes]:
    """Those of the records, in order."""
    return [payload for _, payload in recovered.records]
