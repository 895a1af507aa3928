"""The file operations that durability hangs on, in one place so that tests can make each of them fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class Files:
    """The real file system."""

    def create(self, path: Path) -> int:
        """A new, empty file, open for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def allocate(self, descriptor: int, size: int) -> None:
        """Reserve space that reads as zeros; raises OSError ENOSPC (posix_fallocate(3))."""
        os.posix_fallocate(descriptor, 0, size)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """All of the data, at the offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view = view[written:]
            offset += written

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync_data(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make created, renamed and removed names durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


REAL_FILES = Files()


def make_directory(path: Path, mode: int, files: Files = REAL_FILES) -> bool:
    """Make it, and what is missing above it, durably; False if it was there. Raises OSError."""
    if path.is_dir():
        return False
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        directory.mkdir(mode=mode if directory == path else 0o777, exist_ok=True)
        files.sync_directory(directory.parent)
    return True


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errors that more room cures."""
