"""A disk that keeps what was written and what was synced apart, and misbehaves by seed.

A file is what reads return (`cache`) and what a loss of power leaves (`disk`): they differ in the sectors that are dirty until a
sync. Changes of names wait for a sync of their directory in the same way. A sync that fails writes some of the dirty sectors and
forgets the others, which read on as if they were safe, as on Linux (fsync(2), "EIO").
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from supervisord_agents.journal.files import Files, Usage
from supervisord_agents.journal.lock import locked
from tests.simulation.loop import Crash, Loop, Process, current_thread

SECTOR = 512


class Inode:
    """A file."""

    __slots__ = ("cache", "dirty", "disk", "failed_in", "resized")

    def __init__(self) -> None:
        self.cache = bytearray()
        self.disk = bytearray()
        self.dirty: set[int] = set()
        """Sectors."""
        self.resized = False
        self.failed_in: Process | None = None
        """The process that was told that a sync failed."""

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.cache):
            self.resize(end)
        self.cache[offset:end] = data
        if data:
            self.dirty.update(range(offset // SECTOR, (end - 1) // SECTOR + 1))

    def resize(self, size: int) -> None:
        before = len(self.cache)
        if size > before:
            self.cache.extend(bytes(size - before))
            self.resized = True
            if len(self.disk) > before:  # what was cut off there must not come back
                self.dirty.update(range(before // SECTOR, (min(size, len(self.disk)) - 1) // SECTOR + 1))
        elif size < len(self.cache):
            del self.cache[size:]
            self.dirty = {sector for sector in self.dirty if sector * SECTOR < size}
            self.resized = True

    def sync(self) -> None:
        self._fit(len(self.cache))
        for sector in self.dirty:
            self._keep(sector)
        self.dirty.clear()
        self.resized = False

    def fail_sync(self, dice: Random) -> None:
        """Some sectors reach the disk, the others never will; reads may already show that, or only after a loss of power."""
        self._fit(len(self.cache))
        for sector in sorted(self.dirty):
            if dice.random() < 0.5:
                self._keep(sector)
        self.dirty.clear()
        self.resized = False
        if dice.random() < 0.5:
            self.cache[:] = self.disk

    def lose_power(self, dice: Random) -> None:
        """What is dirty may be there or not: all, nothing, up to a sector, any of it, or with bits flipped in what is new."""
        if self.resized and dice.random() < 0.5:
            self._fit(len(self.cache))
        if self.dirty:
            dirty = [sector for sector in sorted(self.dirty) if sector * SECTOR < len(self.disk)]
            how = dice.randrange(5)
            cut = dice.randint(0, len(dirty))
            for place, sector in enumerate(dirty):
                if how == 0 or (how == 1 and place < cut) or (how >= 3 and dice.random() < 0.5):
                    self._keep(sector, dice if how == 4 else None)
            self.dirty.clear()
        self.resized = False
        self.cache = bytearray(self.disk)

    def _fit(self, size: int) -> None:
        if size > len(self.disk):
            self.disk.extend(bytes(size - len(self.disk)))
        else:
            del self.disk[size:]

    def _keep(self, sector: int, spoil: Random | None = None) -> None:
        start = sector * SECTOR
        new = self.cache[start : min(start + SECTOR, len(self.disk))]
        end = start + len(new)
        old = self.disk[start:end]
        if spoil is not None:
            # What was there before and stays the same is not new: a sector is written whole or not at all.
            fresh = [place for place, (before, after) in enumerate(zip(old, new, strict=False)) if before != after]
            for place in spoil.sample(fresh, min(len(fresh), spoil.randint(0, 3))):
                new[place] ^= 1 << spoil.randrange(8)
        self.disk[start:end] = new


class Directory:
    """Names, as they are and as they were last synced."""

    def __init__(self) -> None:
        self.names: dict[str, Inode | Directory] = {}
        self.durable: dict[str, Inode | Directory] = {}


Step = tuple[Directory, str, "Inode | Directory | None"]


def _apply(names: dict[str, Inode | Directory], name: str, what: Inode | Directory | None) -> None:
    if what is None:
        names.pop(name, None)
    else:
        names[name] = what


class Faults:
    """How likely each fault is now, by call."""

    def __init__(self) -> None:
        self.sync_fails = 0.0
        self.stalls = 0.0

    def none(self) -> None:
        self.sync_fails = self.stalls = 0.0


class Disk:
    """Of `total` bytes, of which others take `foreign`. `violated` is told what no program may do."""

    def __init__(self, loop: Loop, dice: Random, total: int, violated: Callable[[str], None]) -> None:
        self.loop = loop
        self.dice = dice
        self.total = total
        self.foreign = 0
        self.faults = Faults()
        self.violated = violated
        self.root = Directory()
        self._pending: list[tuple[Step, ...]] = []
        """Changes of names. A rename is one, and lasts or not as a whole."""
        self._open: list[Inode] = []
        self.locks: dict[Directory, Process] = {}
        self.operations = 0
        self.full_since: float | None = None

    def directory(self, path: Path) -> Directory:
        found: Inode | Directory | None = self.root
        for part in path.parts[1:]:
            found = found.names.get(part) if isinstance(found, Directory) else None
        if not isinstance(found, Directory):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return found

    def find(self, path: Path) -> Inode | Directory | None:
        try:
            return self.directory(path.parent).names.get(path.name)
        except OSError:
            return None

    def file(self, path: Path) -> Inode:
        found = self.find(path)
        if not isinstance(found, Inode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return found

    def change(self, *steps: Step) -> None:
        for directory, name, what in steps:
            _apply(directory.names, name, what)
        self._pending.append(steps)

    def sync_names(self, directory: Directory | None) -> None:
        """Of one directory, or of all."""
        touched = {(id(changed), name) for steps in self._pending for changed, name, _ in steps if changed is directory}
        left = []
        for steps in reversed(self._pending):
            places = {(id(changed), name) for changed, name, _ in steps}
            if directory is not None and touched.isdisjoint(places):
                left.append(steps)
            else:
                touched |= places  # what came before in the same place is settled with it
        left.reverse()
        kept = set(map(id, left))
        for steps in self._pending:
            if id(steps) not in kept:
                self._last(steps)
        self._pending = left

    def sync_everything(self) -> None:
        for inode in self.inodes():
            inode.sync()
        self.sync_names(None)

    def _last(self, steps: tuple[Step, ...]) -> None:
        for directory, name, what in steps:
            _apply(directory.durable, name, what)

    def inodes(self) -> list[Inode]:
        found: list[Inode] = []
        directories = [self.root]
        for directory in directories:
            for what in directory.names.values():
                if isinstance(what, Directory):
                    directories.append(what)
                else:
                    found.append(what)
        return found

    @property
    def used(self) -> int:
        named = self.inodes()
        known = set(map(id, named))
        unnamed = {id(inode): inode for inode in self._open if id(inode) not in known}
        return sum(len(inode.cache) for inode in [*named, *unnamed.values()])

    @property
    def free(self) -> int:
        return max(0, self.total - self.foreign - self.used)

    def demand(self, growth: int) -> None:
        """Raise ENOSPC if there is no room for so many bytes more."""
        if growth > 0 and self.foreign and growth > self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self, inode: Inode) -> None:
        self._open.append(inode)

    def closed(self, inode: Inode) -> None:
        self._open.remove(inode)

    def forget_process(self) -> None:
        """Whoever had files open is gone."""
        self._open.clear()
        self.locks.clear()

    def lose_power(self) -> None:
        """Every name and every sector is as synced, or as changed since."""
        kept = self._pending
        how = self.dice.randrange(4)
        if how == 1:
            kept = []
        elif how == 2:
            kept = kept[: self.dice.randint(0, len(kept))]
        elif how == 3:
            kept = [steps for steps in kept if self.dice.random() < 0.5]
        for steps in kept:
            self._last(steps)
        self._pending = []
        directories = [self.root]
        for directory in directories:
            directory.names = dict(directory.durable)
            for what in directory.names.values():
                if isinstance(what, Directory):
                    directories.append(what)
                else:
                    what.lose_power(self.dice)


class SimFiles(Files):
    """The file system as one process has it. Before every call the process may die."""

    def __init__(self, disk: Disk, process: Process, on_call: Callable[[str], None]) -> None:
        self._disk = disk
        self._process = process
        self._on_call = on_call
        self._open: dict[int, Inode] = {}
        self._next = 3

    def _step(self, what: str, slow: float = 0.0) -> None:
        """Die, or wait as long as the disk takes."""
        disk = self._disk
        if not self._process.alive:
            raise Crash
        disk.operations += 1
        self._on_call(what)
        thread = current_thread()
        seconds = slow * disk.dice.random()
        if disk.faults.stalls and disk.dice.random() < disk.faults.stalls:
            seconds = disk.dice.choice((0.5, 5.0, 20.0))
        if thread is not None:
            thread.sleep(seconds)
        elif seconds:
            disk.loop.spend(seconds)

    def _sync_fails(self) -> bool:
        return bool(self._disk.faults.sync_fails) and self._disk.dice.random() < self._disk.faults.sync_fails

    # Files

    def create(self, path: Path, mode: int = 0o600) -> int:
        self._step(f"create {path.name}")
        parent = self._disk.directory(path.parent)
        inode = parent.names.get(path.name)
        if not isinstance(inode, Inode):
            self._disk.demand(1)
            inode = Inode()
            self._disk.change((parent, path.name, inode))
        inode.resize(0)
        return self._descriptor(inode)

    def open(self, path: Path) -> int:
        self._step(f"open {path.name}")
        return self._descriptor(self._disk.file(path))

    def _descriptor(self, inode: Inode) -> int:
        self._next += 1
        self._open[self._next] = inode
        self._disk.opened(inode)
        return self._next

    def close(self, descriptor: int) -> None:
        if not self._process.alive:
            raise Crash
        self._disk.closed(self._open.pop(descriptor))

    def allocate(self, descriptor: int, size: int) -> None:
        self._step("allocate", 0.001)
        inode = self._open[descriptor]
        self._disk.demand(size - len(inode.cache))
        if size > len(inode.cache):
            inode.resize(size)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self._step("write", 0.0002)
        inode = self._open[descriptor]
        try:
            self._disk.demand(offset + len(data) - len(inode.cache))
        except OSError:
            inode.write(data[: max(0, len(inode.cache) + self._disk.free - offset)], offset)
            raise
        inode.write(data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate")
        self._open[descriptor].resize(size)

    def sync_data(self, descriptor: int) -> None:
        self._synced(descriptor, "sync_data")

    def sync(self, descriptor: int) -> None:
        self._synced(descriptor, "sync")

    def _synced(self, descriptor: int, what: str) -> None:
        inode = self._open[descriptor]
        if inode.failed_in is self._process:
            self._disk.violated("a sync that failed was tried again by the same process")
        self._step(what, 0.004)
        if self._sync_fails():
            inode.fail_sync(self._disk.dice)
            inode.failed_in = self._process
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        inode.sync()

    def read(self, path: Path) -> bytes:
        self._alive()
        return bytes(self._disk.file(path).cache)

    def size(self, path: Path) -> int:
        self._alive()
        return len(self._disk.file(path).cache)

    def exists(self, path: Path) -> bool:
        self._alive()
        return self._disk.find(path) is not None

    # Names

    def names(self, directory: Path) -> list[str]:
        self._alive()
        return sorted(name for name, what in self._disk.directory(directory).names.items() if isinstance(what, Inode))

    def rename(self, source: Path, target: Path) -> None:
        self._step(f"rename {source.name} {target.name}")
        inode = self._disk.file(source)
        self._disk.change(
            (self._disk.directory(source.parent), source.name, None), (self._disk.directory(target.parent), target.name, inode)
        )

    def remove(self, path: Path) -> None:
        self._step(f"remove {path.name}")
        parent = self._disk.directory(path.parent)
        if path.name in parent.names:
            self._disk.change((parent, path.name, None))

    # Directories

    def is_directory(self, path: Path) -> bool:
        self._alive()
        return path == Path("/") or isinstance(self._disk.find(path), Directory)

    def make_directory(self, path: Path, mode: int) -> None:
        self._step(f"mkdir {path.name}")
        if not self.is_directory(path):
            self._disk.change((self._disk.directory(path.parent), path.name, Directory()))

    def remove_directory(self, path: Path) -> None:
        self._step(f"rmdir {path.name}")
        self._disk.change((self._disk.directory(path.parent), path.name, None))

    def sync_directory(self, path: Path) -> None:
        self._step(f"sync_directory {path.name}", 0.002)
        if self._sync_fails():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._disk.sync_names(self._disk.directory(path))

    def lock(self, directory: Path) -> SimLock:
        self._step("lock")
        found = self._disk.directory(directory)
        owner = self._disk.locks.get(found)
        if owner is not None and owner.alive:
            raise locked(directory, owner.name)
        self._disk.locks[found] = self._process
        return SimLock(self._disk, found)

    # The file system

    def sync_all(self, directory: Path) -> None:
        self._step("sync_all", 0.01)
        if self._sync_fails():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._disk.sync_everything()

    def usage(self, directory: Path) -> Usage:
        self._alive()
        return Usage(self._disk.total, self._disk.free)

    def _alive(self) -> None:
        if not self._process.alive:
            raise Crash


class SimLock:
    def __init__(self, disk: Disk, directory: Directory) -> None:
        self._disk = disk
        self._directory = directory

    def release(self) -> None:
        self._disk.locks.pop(self._directory, None)
