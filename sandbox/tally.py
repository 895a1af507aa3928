"""What the files take that have changed since a moment: those below some directories, and those that only processes hold yet."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

DEEPEST = 200
"""Levels of directories. A tree that is deeper cannot be counted: each level holds a descriptor meanwhile."""
BLOCK = 512
"""Bytes, of `st_blocks` whatever the file system (inode(7))."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Room(NamedTuple):
    """On a disk: bytes and files."""

    bytes: int = 0
    files: int = 0

    def less(self, other: Room) -> Room:
        return Room(self.bytes - other.bytes, self.files - other.files)

    def plus(self, other: Room) -> Room:
        return Room(self.bytes + other.bytes, self.files + other.files)

    def or_nothing(self) -> Room:
        return Room(max(0, self.bytes), max(0, self.files))

    def where(self, limit: Room) -> Room:
        """The same as a limit, where `limit` has one."""
        return Room(*(max(1, there) if most else 0 for there, most in zip(self, limit, strict=True)))

    def exceeds(self, limit: Room) -> bool:
        """Whether it is more, of bytes or of files; what is 0 in `limit` has none."""
        return any(most and there > most for there, most in zip(self, limit, strict=True))


class Uncountable(Exception):
    """Something has changed where nobody can look; the text says where."""


class Tally:
    """Counts each file once, whatever its names. A moment is in nanoseconds since the epoch, by the clock of the file system."""

    def __init__(self, since_ns: int, enough: Room) -> None:
        """Counting ends when there is more than `enough`."""
        self.room = Room()
        self._since_ns = since_ns
        self._enough = enough
        self._devices: set[int] = set()
        self._seen: set[tuple[int, int]] = set()

    def below(self, root: int) -> None:
        """Count a file or a directory and all below it, other file systems apart. `root` is a descriptor, of O_PATH at least.

        Raises Uncountable.
        """
        status = os.fstat(root)
        self._devices.add(status.st_dev)
        self._add(status)
        if stat.S_ISDIR(status.st_mode):
            self._enter(root, ".", status, 0)

    def held_by(self, number: int) -> None:
        """Count files without a name that processes in the PID namespace of this one have open, or mapped if we may see that."""
        devices = self._devices | _overlays(number)
        for status in _nameless(number):
            if status.st_dev in devices:
                self._add(status)

    def _enter(self, parent: int, name: str, status: os.stat_result, depth: int) -> None:
        if depth > DEEPEST:
            raise Uncountable(f"a tree of more than {DEEPEST} levels")
        try:
            directory = os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):  # removed or replaced meanwhile
            return
        except OSError as error:
            if status.st_ctime_ns < self._since_ns:
                return
            raise Uncountable(f"{name}: {error.strerror}") from error
        try:
            self._look_through(directory, depth)
        finally:
            os.close(directory)

    def _look_through(self, directory: int, depth: int) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                if self.room.exceeds(self._enough):
                    return
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_dev in self._devices:
                        self._add(status)
                        if stat.S_ISDIR(status.st_mode):
                            self._enter(directory, entry.name, status, depth + 1)

    def _add(self, status: os.stat_result) -> None:
        key = (status.st_dev, status.st_ino)
        if status.st_ctime_ns < self._since_ns or key in self._seen:
            return
        if status.st_nlink != 1:  # only these can be met again
            self._seen.add(key)
        self.room = self.room.plus(Room(status.st_blocks * BLOCK, 1))


def _overlays(number: int) -> set[int]:
    """The devices that files have in copy-on-write views that a process sees: other ones than the files below them."""
    found: set[int] = set()
    with contextlib.suppress(OSError), open(f"/proc/{number}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.startswith("overlay "):
                major, minor = before.split()[2].split(":")
                found.add(os.makedev(int(major), int(minor)))
    return found


def _nameless(number: int) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):
        namespace = os.stat(f"/proc/{number}/ns/pid").st_ino
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{process}/ns/pid").st_ino == namespace:
                    yield from _held(process)


def _held(process: str) -> Iterator[os.stat_result]:
    for kind in ("fd", "map_files"):  # the second is for those who may restore checkpoints (proc(5))
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/{kind}") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        yield status
