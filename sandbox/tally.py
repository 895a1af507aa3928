"""What the files take that have changed since a moment: those below some directories, and those that only processes hold yet."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, TextIO

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

    def least(self, other: Room) -> Room:
        return Room(min(self.bytes, other.bytes), min(self.files, other.files))

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

    def held_by(self, process: int, *, trusted: bool) -> None:
        """Count files without a name that a process (unless it is trusted) and its descendants have open or mapped.

        Raises Uncountable for one that hides what it holds, in itself or on its way to another.
        """
        places = _Places.of(process, self._devices)
        for number in _family(process):
            if number != process or not trusted:
                for status in _held(number, places):
                    self._add(status)

    def _enter(self, parent: int, name: str, status: os.stat_result, depth: int) -> None:
        if depth > DEEPEST:
            raise Uncountable(f"a tree of more than {DEEPEST} levels")
        try:
            directory = os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):  # removed or replaced meanwhile
            return
        except OSError as error:
            # Another's that is closed to us is closed to the sandbox, which has no more rights.
            if status.st_uid != os.geteuid() and status.st_ctime_ns < self._since_ns:
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
                # Whose names we may read and whose files we may not, the sandbox may not enter either.
                with contextlib.suppress(FileNotFoundError, PermissionError):
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


class _Places(NamedTuple):
    """Where the files lie that count."""

    devices: set[int]
    elsewhere: set[int]
    """Devices of what else is mounted."""
    views: bool
    """There is a copy-on-write view, whose files may have a device of its own that no mount is told to have."""

    @classmethod
    def of(cls, process: int, devices: set[int]) -> _Places:
        """As this process sees its mounts."""
        there, views = set(), False
        with contextlib.suppress(OSError), lines_of(f"/proc/{process}/mountinfo") as file:
            for line in file:
                fields, _, kind = line.partition(" - ")
                if kind.startswith("overlay "):
                    views = True
                else:
                    major, minor = fields.split(" ")[2].split(":")
                    there.add(os.makedev(int(major), int(minor)))
        return cls(devices, there - devices, views)

    def have(self, status: os.stat_result) -> bool:
        """Whether a file without a name counts."""
        if not stat.S_ISREG(status.st_mode) or status.st_nlink:
            return False
        return status.st_dev in self.devices or (self.views and status.st_dev not in self.elsewhere)


def lines_of(path: str) -> TextIO:
    """A file of /proc, in which a name may hold any character but the end of a line."""
    return open(path, encoding="utf-8", errors="surrogateescape", newline="\n")


def _family(first: int) -> list[int]:
    """A process and its descendants. In a PID namespace these are all, of its first one: it adopts the orphans."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = [first]
    for process in found:
        found += children.get(process, [])
    return found


def _held(process: int, places: _Places) -> Iterator[os.stat_result]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{process}/task"):  # the first of several may have ended, and shows nothing then
            yield from _open_in(f"/proc/{process}/task/{task}", places)
        yield from _mapped_in(f"/proc/{process}", places)


def _open_in(task: str, places: _Places) -> Iterator[os.stat_result]:
    try:
        names = os.listdir(f"{task}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return
    except OSError as error:
        if _is_ending(task):
            return
        raise Uncountable("a process hides what it has open") from error
    for name in names:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = os.stat(f"{task}/fd/{name}")
            if stat.S_ISSOCK(status.st_mode) and _carries_files(f"{task}/fdinfo/{name}"):
                raise Uncountable("files are under way between processes")
            if places.have(status) and not _in_memory(os.readlink(f"{task}/fd/{name}")):
                yield status


def _is_ending(task: str) -> bool:
    """Whether it has no memory any more: then what it has open is closed to others, and is about to be closed for good."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), lines_of(f"{task}/status") as file:
        return not any(line.startswith("VmSize:") for line in file)
    return True


def _carries_files(fdinfo: str) -> bool:
    """Whether descriptors wait in a socket, by `scm_fds` (proc_pid_fdinfo(5), since Linux 5.6)."""
    with lines_of(fdinfo) as file:
        return any(line.startswith("scm_fds:") and line.split()[1] != "0" for line in file)


def _in_memory(name: str) -> bool:
    """Of memfd_create(2), System V and shared anonymous memory, which are limited as memory."""
    return name.startswith(("/memfd:", "/SYSV", "/dev/zero", "/[aio]"))


def _mapped_in(process: str, places: _Places) -> Iterator[os.stat_result]:
    """What is mapped, which only those may look at who may restore checkpoints (proc_pid_map_files(5))."""
    try:
        names = os.listdir(f"{process}/map_files")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            path = f"{process}/map_files/{name}"
            status = os.stat(path)
            if places.have(status) and not _in_memory(os.readlink(path)):
                yield status
