"""All that is asked of the file system where state lies, in one place: a disk that tests make up can stand in for the real one.

Every method raises OSError as the call behind it does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.journal.lock import DirectoryLock, Lock

_libc = ctypes.CDLL(None, use_errno=True)


class Usage(NamedTuple):
    """Bytes of a file system. Some tell no size: then `total` is 0."""

    total: int
    free: int


class Files:
    """The real file system."""

    # Files

    def create(self, path: Path, mode: int = 0o600) -> int:
        """A new, empty file, open for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)

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

    def read(self, path: Path) -> bytes:
        """The whole file."""
        return path.read_bytes()

    def size(self, path: Path) -> int:
        """Of the file, in bytes."""
        return path.stat().st_size

    def exists(self, path: Path) -> bool:
        return path.exists()

    # Names

    def names(self, directory: Path) -> list[str]:
        """Those of the regular files in it, sorted."""
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """The file, if it is there."""
        path.unlink(missing_ok=True)

    # Directories

    def is_directory(self, path: Path) -> bool:
        return path.is_dir()

    def make_directory(self, path: Path, mode: int) -> None:
        """It may be there already."""
        path.mkdir(mode=mode, exist_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Of an empty one."""
        path.rmdir()

    def sync_directory(self, path: Path) -> None:
        """Make created, renamed and removed names durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, directory: Path) -> Lock:
        """Be the only one who writes there. Raises JournalLocked."""
        return DirectoryLock(directory)

    # The file system

    def sync_all(self, directory: Path) -> None:
        """Put everything on disk that the file system of the directory holds (syncfs(2))."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)

    def usage(self, directory: Path) -> Usage:
        usage = shutil.disk_usage(directory)
        return Usage(usage.total, usage.free)


REAL_FILES = Files()


def make_directory(path: Path, mode: int, files: Files = REAL_FILES) -> bool:
    """Make it, and what is missing above it, durably; False if it was there. Raises OSError."""
    if files.is_directory(path):
        # A process before may have ended between making it and making it durable.
        with contextlib.suppress(PermissionError):
            files.sync_directory(path.parent)
        return False
    missing = [path]
    while not files.is_directory(missing[-1].parent):
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        files.make_directory(directory, mode if directory == path else 0o777)
        files.sync_directory(directory.parent)
    return True


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errors that more room cures."""
