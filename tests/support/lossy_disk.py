"""A file system in memory that keeps what was written apart from what was synced, and can lose the difference.

It promises no more than POSIX does: fsync(2) of a file makes its bytes and its length durable, fsync of a directory its names. A
name without an fsync of its directory may be gone after a loss of power although the file was synced, and what was written may
reach the disk in any order and in parts (Pillai et al., All File Systems Are Not Created Equal, OSDI 2014). Owners, modes and
times count as durable with the file. After a failed fsync what it should have written is lost for good, as on Linux.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

SECTOR_BYTES = 512
PAGE_BYTES = 4096
ROOT = 1
FILES = 1_000_000


class Loss(StrEnum):
    """What becomes of unsynced data when the power goes."""

    ALL = "all"
    """All of it is gone."""
    SOME = "some"
    """Any names and any pages of it may have reached the disk."""
    TORN = "torn"
    """The same, and a write may be torn at any sector."""


@dataclass
class Write:
    """Bytes at an offset."""

    offset: int
    data: bytes

    def apply(self, content: bytearray) -> None:
        end = self.offset + len(self.data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        content[self.offset : end] = self.data

    def parts(self, size: int) -> Iterator[Write]:
        """The same, in pieces that each lie in one block of that size."""
        start = self.offset
        while start < self.offset + len(self.data):
            end = min(start - start % size + size, self.offset + len(self.data))
            yield Write(start, self.data[start - self.offset : end - self.offset])
            start = end


@dataclass
class Resize:
    """A new length; what is added reads as zeros."""

    size: int
    grow_only: bool = False

    def apply(self, content: bytearray) -> None:
        if len(content) < self.size:
            content.extend(bytes(self.size - len(content)))
        elif not self.grow_only:
            del content[self.size :]


@dataclass
class Inode:
    """A file, directory or other thing, as it is and as it is on the disk."""

    number: int
    mode: int
    uid: int
    gid: int
    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Write | Resize] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    durable_names: dict[str, int] = field(default_factory=dict)
    target: str = ""
    links: int = 0
    opened: int = 0
    accessed_ns: int = 0
    modified_ns: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Place = tuple[int, str]
"""A name in a directory."""


@dataclass
class Naming:
    """A change of names that reaches the disk whole or not at all; None: the name is gone."""

    changes: dict[Place, int | None]

    @property
    def directories(self) -> set[int]:
        return {directory for directory, _ in self.changes}


class LossyDisk:
    """The file system. Its methods are those of one thread at a time. Raises OSError as the system calls would."""

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        """Bytes of all files together."""
        self.sync_fails = False
        self.syncs = 0
        self._inodes: dict[int, Inode] = {}
        self._unsynced_names: list[Naming] = []
        self._next = ROOT
        self._used = 0
        self.root = self._new(stat.S_IFDIR | 0o755, 0, 0)
        self.root.links = 1

    # Looking

    def lookup(self, path: str) -> Inode:
        found = self.root
        for name in filter(None, path.split("/")):
            if not found.is_directory:
                raise _error(errno.ENOTDIR, path)
            if name not in found.names:
                raise _error(errno.ENOENT, path)
            found = self._inodes[found.names[name]]
        return found

    def inode(self, number: int) -> Inode:
        return self._inodes[number]

    @property
    def used(self) -> int:
        """Bytes of all files that have a name or are open."""
        return self._used

    # Names

    def make(self, path: str, mode: int, uid: int, gid: int, target: str = "") -> Inode:
        """A new file, directory (by its mode), symbolic link or other thing."""
        directory, name = self._place(path)
        if name in directory.names:
            raise _error(errno.EEXIST, path)
        made = self._new(mode, uid, gid)
        made.target = target
        self._name({(directory.number, name): made.number})
        return made

    def remove(self, path: str) -> None:
        directory, name = self._place(path)
        inode = self.lookup(path)
        if inode.names:
            raise _error(errno.ENOTEMPTY, path)
        self._name({(directory.number, name): None})

    def rename(self, old: str, new: str) -> None:
        (source, source_name), (target, target_name) = self._place(old), self._place(new)
        inode = self.lookup(old)
        replaced = target.names.get(target_name)
        if replaced == inode.number:
            return
        if replaced is not None and self._inodes[replaced].names:
            raise _error(errno.ENOTEMPTY, new)
        self._name({(source.number, source_name): None, (target.number, target_name): inode.number})

    # Contents

    def write(self, inode: Inode, data: bytes, offset: int) -> None:
        change = Write(offset, data)
        self._take(max(offset + len(data) - len(inode.content), 0))
        change.apply(inode.content)
        inode.unsynced.append(change)
        inode.modified_ns = time.time_ns()

    def resize(self, inode: Inode, size: int, *, grow_only: bool = False) -> None:
        change = Resize(size, grow_only)
        by = size - len(inode.content)
        if by > 0 or not grow_only:
            self._take(by)
        change.apply(inode.content)
        inode.unsynced.append(change)
        inode.modified_ns = time.time_ns()

    def release(self, inode: Inode) -> None:
        """A descriptor of it was closed."""
        inode.opened -= 1
        self._forget_unused(inode)

    # Durability

    def sync(self, inode: Inode) -> None:
        """fsync(2) of a file or a directory."""
        self.syncs += 1
        if self.sync_fails:
            inode.unsynced.clear()
            raise _error(errno.EIO, "")
        for change in inode.unsynced:
            change.apply(inode.durable)
        inode.unsynced.clear()
        if inode.is_directory:
            self._sync_names(inode.number)

    def sync_all(self) -> None:
        """syncfs(2)."""
        for inode in list(self._inodes.values()):
            self.sync(inode)

    def cut_power(self, loss: Loss, dice: random.Random) -> LossyDisk:
        """The disk as a machine finds it that comes up after a loss of power now. This one is not changed."""
        left = LossyDisk(self.capacity)
        # How much gets through differs from one time to another.
        kept = 0.0 if loss is Loss.ALL else dice.random()
        names = {number: dict(inode.durable_names) for number, inode in self._inodes.items()}
        for naming in self._unsynced_names:
            if dice.random() < kept:
                _rename_in(names, naming)
        left._inodes = {}
        pending = [ROOT]
        while pending:
            number = pending.pop()
            inode = self._inodes[number]
            content = bytearray(inode.durable)
            for change in _reached(inode.unsynced, loss, kept, dice):
                change.apply(content)
            left._inodes[number] = Inode(
                number=number,
                mode=inode.mode,
                uid=inode.uid,
                gid=inode.gid,
                content=content,
                durable=bytearray(content),
                names=dict(names[number]),
                durable_names=dict(names[number]),
                target=inode.target,
                accessed_ns=inode.accessed_ns,
                modified_ns=inode.modified_ns,
            )
            left._used += len(content)
            pending += [child for child in names[number].values() if child not in left._inodes]
        for inode in left._inodes.values():
            for child in inode.names.values():
                left._inodes[child].links += 1
        left.root = left._inodes[ROOT]
        left.root.links = 1
        left._next = self._next
        return left

    # Inside

    def _new(self, mode: int, uid: int, gid: int) -> Inode:
        now = time.time_ns()
        inode = Inode(self._next, mode, uid, gid, accessed_ns=now, modified_ns=now)
        self._inodes[inode.number] = inode
        self._next += 1
        return inode

    def _place(self, path: str) -> tuple[Inode, str]:
        parent, _, name = path.rpartition("/")
        return self.lookup(parent), name

    def _name(self, changes: dict[Place, int | None]) -> None:
        # What is renamed has two names for a moment, rather than none.
        for number in changes.values():
            if number is not None:
                self._inodes[number].links += 1
        for (directory, name), number in changes.items():
            names = self._inodes[directory].names
            before = names.pop(name, None)
            if number is not None:
                names[name] = number
            if before is not None:
                self._inodes[before].links -= 1
                self._forget_unused(self._inodes[before])
            self._inodes[directory].modified_ns = time.time_ns()
        self._unsynced_names.append(Naming(changes))

    def _sync_names(self, directory: int) -> None:
        """Make all changes of names in it durable, and those before that they build on."""
        wanted, chosen = {directory}, []
        for naming in reversed(self._unsynced_names):
            if wanted & naming.directories:
                wanted |= naming.directories
                chosen.append(naming)
        durable = {number: self._inodes[number].durable_names for number in wanted}
        for naming in reversed(chosen):
            _rename_in(durable, naming)
        self._unsynced_names = [naming for naming in self._unsynced_names if not any(naming is one for one in chosen)]

    def _take(self, size: int) -> None:
        if size > 0 and self._used + size > self.capacity:
            raise _error(errno.ENOSPC, "")
        self._used += size

    def _forget_unused(self, inode: Inode) -> None:
        """Give back the room of what has no name and is not open; the disk may have it under a name still."""
        if inode.links <= 0 and inode.opened <= 0:
            self._used -= len(inode.content)
            inode.content = bytearray()


def _rename_in(names: dict[int, dict[str, int]], naming: Naming) -> None:
    for (directory, name), number in naming.changes.items():
        if number is None:
            names[directory].pop(name, None)
        else:
            names[directory][name] = number


def _reached(changes: list[Write | Resize], loss: Loss, kept: float, dice: random.Random) -> Iterator[Write | Resize]:
    """The changes, or parts of them, that reached the disk without a sync."""
    for change in changes:
        if isinstance(change, Resize):
            if dice.random() < kept:
                yield change
            continue
        yield from (part for part in change.parts(SECTOR_BYTES if loss is Loss.TORN else PAGE_BYTES) if dice.random() < kept)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
