"""The process that mounts a LossyDisk by FUSE, in a mount namespace of its own, and runs daemons on it: see lossy_machine.py.

Nothing of it is seen by the rest of the machine, and the mount goes with the last process of the namespace. libfuse calls
mount(2) itself, so the guard is passed before it is even loaded. Commands come as lines of JSON on stdin, answers go to stdout.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox import linux, mounts
from tests.support.lossy_disk import FILES, Inode, Loss, LossyDisk

SYNC_ATTRIBUTE = "user.sync"
"""Setting it is syncfs(2), which FUSE does not pass on."""
BLOCK_BYTES = 4096


def enter_own_mount_namespace() -> None:
    """Leave the mount namespace of the parent. Raises, with nothing mounted, if this process is still in it, or in init's."""
    shared = {mounts.namespace(), os.readlink(f"/proc/{os.getppid()}/ns/mnt")}
    with contextlib.suppress(PermissionError):  # init's may be hidden even from root
        shared.add(os.readlink("/proc/1/ns/mnt"))
    linux.unshare(linux.CLONE_NEWNS)
    if mounts.namespace() in shared:
        raise SystemExit("still in the mount namespace of the machine: refused to mount")
    mounts.PrivateMounts()  # compares once more, and makes the propagation private


class Disk:
    """A LossyDisk behind the operations of mfusepy, with a lock, and with faults that block."""

    use_ns = True

    def __init__(self, disk: LossyDisk) -> None:
        self.disk = disk
        self.mounted = threading.Event()
        self.stalled = False
        self.frozen = False
        self.waiting = 0
        """Syncs that a stalled disk has not done yet."""
        self.changed = threading.Condition()

    @contextmanager
    def _running(self) -> Iterator[LossyDisk]:
        """The disk, for one operation; none is begun once it is frozen, nor ends."""
        with self.changed:
            while self.frozen:
                self.changed.wait()
            yield self.disk

    def _owner(self) -> tuple[int, int]:
        from mfusepy import fuse_get_context

        uid, gid, _ = fuse_get_context()
        return uid, gid

    def init(self, path: str) -> None:
        self.mounted.set()

    # Looking

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        with self._running() as disk:
            inode = disk.inode(fh) if fh else disk.lookup(path)
            return {
                "st_ino": inode.number,
                "st_mode": inode.mode,
                "st_nlink": 2 if inode.is_directory else max(inode.links, 0),
                "st_uid": inode.uid,
                "st_gid": inode.gid,
                "st_size": len(inode.content),
                "st_blocks": -(-len(inode.content) // 512),
                "st_atime": inode.accessed_ns,
                "st_mtime": inode.modified_ns,
                "st_ctime": inode.modified_ns,
            }

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with self._running() as disk:
            directory = disk.lookup(path)
            entries = [(".", directory.number), ("..", directory.number), *directory.names.items()]
            # An entry whose number is 0 is taken for a removed one.
            return [(name, {"st_ino": number, "st_mode": disk.inode(number).mode}, 0) for name, number in entries]

    def readlink(self, path: str) -> str:
        with self._running() as disk:
            return disk.lookup(path).target

    def statfs(self, path: str) -> dict[str, int]:
        with self._running() as disk:
            blocks, free = disk.capacity // BLOCK_BYTES, max(disk.capacity - disk.used, 0) // BLOCK_BYTES
        return {
            "f_bsize": BLOCK_BYTES,
            "f_frsize": BLOCK_BYTES,
            "f_blocks": blocks,
            "f_bfree": free,
            "f_bavail": free,
            "f_files": FILES,
            "f_ffree": FILES,
            "f_favail": FILES,
            "f_namemax": 255,
        }

    # Names

    def mkdir(self, path: str, mode: int) -> int:
        return self._made(path, stat.S_IFDIR | mode)

    def mknod(self, path: str, mode: int, device: int) -> int:
        return self._made(path, mode)

    def symlink(self, link: str, target: str) -> int:
        return self._made(link, stat.S_IFLNK | 0o777, target)

    def _made(self, path: str, mode: int, target: str = "") -> int:
        uid, gid = self._owner()
        with self._running() as disk:
            disk.make(path, mode, uid, gid, target)
        return 0

    def unlink(self, path: str) -> int:
        with self._running() as disk:
            disk.remove(path)
        return 0

    rmdir = unlink

    def rename(self, old: str, new: str) -> int:
        with self._running() as disk:
            disk.rename(old, new)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        with self._running() as disk:
            inode = disk.lookup(path)
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        with self._running() as disk:
            inode = disk.lookup(path)
            inode.uid = uid if uid not in (-1, 0xFFFFFFFF) else inode.uid
            inode.gid = gid if gid not in (-1, 0xFFFFFFFF) else inode.gid
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        with self._running() as disk:
            inode = disk.lookup(path)
            inode.accessed_ns, inode.modified_ns = times or (time.time_ns(), time.time_ns())
        return 0

    # Contents

    def create(self, path: str, mode: int, fi: object = None) -> int:
        uid, gid = self._owner()
        with self._running() as disk:
            return self._opened(disk.make(path, stat.S_IFREG | stat.S_IMODE(mode), uid, gid))

    def open(self, path: str, flags: int) -> int:
        with self._running() as disk:
            inode = disk.lookup(path)
            if flags & os.O_TRUNC:
                disk.resize(inode, 0)
            return self._opened(inode)

    def _opened(self, inode: Inode) -> int:
        inode.opened += 1
        return inode.number

    def release(self, path: str, fh: int) -> int:
        with self._running() as disk:
            disk.release(disk.inode(fh))
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with self._running() as disk:
            return bytes(disk.inode(fh).content[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self._running() as disk:
            disk.write(disk.inode(fh), data, offset)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self._running() as disk:
            disk.resize(disk.inode(fh) if fh else disk.lookup(path), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        with self._running() as disk:
            disk.resize(disk.inode(fh), offset + size, grow_only=True)
        return 0

    # Durability

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self._synced() as disk:
            disk.sync(disk.inode(fh))
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        with self._synced() as disk:
            disk.sync(disk.lookup(path))
        return 0

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        if name != SYNC_ATTRIBUTE:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        with self._synced() as disk:
            disk.sync_all()
        return 0

    @contextmanager
    def _synced(self) -> Iterator[LossyDisk]:
        """As `_running`, when the disk is not stalled any more."""
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()
            while self.stalled or self.frozen:
                self.changed.wait()
            self.waiting -= 1
            yield self.disk


class Control:
    """Carries out the commands of the test, one at a time."""

    def __init__(self, disk: Disk, image: Path) -> None:
        self._disk = disk
        self._image = image

    def run(self) -> None:
        """Until stdin ends: then nobody is left who could want this process."""
        self._disk.mounted.wait()
        _answer({"mounted": True})
        for line in sys.stdin:
            command = json.loads(line)
            name = command.pop("do")
            _answer(getattr(self, f"_do_{name}")(**command) or {})
        os._exit(0)

    def _do_spawn(self, argv: list[str], environment: dict[str, str], log: str) -> dict[str, Any]:
        """A process in this namespace, so one that sees the mount."""
        with open(log, "ab") as output:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd="/")
        threading.Thread(target=child.wait, daemon=True).start()
        self._child = child
        return {"pid": child.pid}

    def _do_ended(self) -> dict[str, Any]:
        """The exit code of the process that was started last; None while it runs."""
        return {"code": self._child.returncode}

    def _do_set(self, **faults: Any) -> None:
        with self._disk.changed:
            self._disk.stalled = faults.get("stalled", self._disk.stalled)
            self._disk.disk.sync_fails = faults.get("sync_fails", self._disk.disk.sync_fails)
            self._disk.disk.capacity = faults.get("capacity", self._disk.disk.capacity)
            self._disk.changed.notify_all()

    def _do_look(self) -> dict[str, Any]:
        with self._disk.changed:
            disk = self._disk.disk
            return {"used": disk.used, "capacity": disk.capacity, "syncs": disk.syncs, "waiting": self._disk.waiting}

    def _do_freeze(self) -> None:
        """From now on nothing is written, nor synced, nor answered."""
        with self._disk.changed:
            self._disk.frozen = True

    def _do_cut(self, loss: str, seed: int) -> None:
        """Write down what is left after a loss of power, for the next start of the machine."""
        with self._disk.changed:
            left = self._disk.disk.cut_power(Loss(loss), random.Random(seed))
        _save(left, self._image)

    def _do_halt(self) -> None:
        """Write down everything, as after an orderly unmount."""
        with self._disk.changed:
            self._disk.disk.sync_fails = False
            self._disk.disk.sync_all()
            left = self._disk.disk.cut_power(Loss.ALL, random.Random(0))
        _save(left, self._image)


def _save(disk: LossyDisk, image: Path) -> None:
    temporary = image.with_suffix(".new")
    temporary.write_bytes(pickle.dumps(disk))
    temporary.rename(image)


def _answer(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    place, image, capacity = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    enter_own_mount_namespace()
    from mfusepy import FUSE

    disk = pickle.loads(image.read_bytes()) if image.exists() else LossyDisk()
    disk.capacity = capacity
    mounted = Disk(disk)
    threading.Thread(target=Control(mounted, image).run, daemon=True).start()
    FUSE(mounted, str(place), foreground=True, allow_other=True, default_permissions=True, use_ino=True, fsname="lossy")


if __name__ == "__main__":
    main()
