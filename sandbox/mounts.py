"""Every mount of the project, behind one guard.

mount(2), umount2(2) and pivot_root(2) in the mount namespace of the host replace the root of the whole machine. So they are
methods of PrivateMounts, which cannot be made there; nothing else may call them, and a test reads the source to see to it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from sandbox import linux
from sandbox.errors import SandboxError

# linux/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 2, 4, 8, 32, 1 << 14, 1 << 18
MNT_DETACH = 2
OPEN_TREE_CLONE, AT_RECURSIVE, AT_EMPTY_PATH, MOVE_MOUNT_FROM_EMPTY, MOVE_MOUNT_TO_EMPTY = 1, 0x8000, 0x1000, 0x4, 0x40
AT_FDCWD = -100
RDONLY, NOSUID, NODEV, IDMAP = 0x1, 0x2, 0x4, 0x100000
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT, _SYS_MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_CLOEXEC, _SET_FLAG, _SET_STRING, _CREATE = 1, 0, 1, 6
OVERLAY = {"lowerdir": "lower", "upperdir": "layers/upper", "workdir": "layers/work"}
"""Relative to where it is put together, for colons and commas mean something in these options."""
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def namespace() -> str:
    """The mount namespace of this process, by its inode."""
    return os.readlink("/proc/self/ns/mnt")


_FIRST_NAMESPACE = namespace()
"""Seen when this module was loaded: a sandbox is cloned from a process that had done so, and is never exec'd."""


class PrivateMounts:
    """The right to mount, in a mount namespace that is this process's own."""

    def __init__(self) -> None:
        """Cut the ties to the namespace of the process that made this one.

        Raises SandboxError, with nothing touched, in the mount namespace that this module was loaded in, which is the parent's.
        """
        if namespace() == _FIRST_NAMESPACE:
            raise SandboxError("still in the mount namespace of the host: refused to mount.", step="guard")
        self._mount(None, "/", None, MS_REC | MS_PRIVATE, None)

    def tmpfs(self, target: str, size: int, inodes: int) -> None:
        """An empty file system in memory, of at most `size` bytes."""
        options = f"size={size},nr_inodes={inodes},mode=0755".encode()
        self._mount(b"tmpfs", target, b"tmpfs", MS_NOSUID | MS_NODEV, options)

    def proc(self, target: str) -> None:
        self._mount(b"proc", target, b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)

    def devpts(self, target: str) -> None:
        self._mount(b"devpts", target, b"devpts", MS_NOSUID | MS_NOEXEC, b"newinstance,ptmxmode=0666,mode=0620")

    def tree_at(self, path: str) -> int:
        """A detached copy of what lies at a path, with all mounts below, as a new descriptor. To be protected."""
        flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
        return linux.syscall("mount", f"open_tree of {path}", _SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)

    def protect_tree(self, tree: int, attributes: int) -> None:
        """Set attributes (MOUNT_ATTR_*) on all of a detached tree."""
        self._set(tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes)

    def protect(self) -> None:
        """Make everything that has been attached below the working directory read-only, but not its own mount."""
        self._set(AT_FDCWD, b".", AT_RECURSIVE, RDONLY | NOSUID | NODEV)
        self._set(AT_FDCWD, b".", 0, 0, cleared=RDONLY)

    def tree(self, descriptor: int, *, attributes: int, users: int = -1) -> int:
        """A detached copy of what lies at an O_PATH descriptor, with all mounts below, as a new descriptor.

        `attributes` (MOUNT_ATTR_*) are set on all of it. `users` is a user namespace whose maps shift the owners
        (mount_setattr(2)).
        """
        flags = OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH | os.O_CLOEXEC
        tree = linux.syscall("mount", "open_tree", _SYS_OPEN_TREE, descriptor, b"", flags)
        if users >= 0:
            attributes |= IDMAP
        self._set(tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, users)
        return tree

    def attach_at(self, tree: int, path: str) -> None:
        """Put a detached tree on the file or directory at a path."""
        flags = MOVE_MOUNT_FROM_EMPTY
        linux.syscall("mount", f"move_mount to {path}", _SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), flags)

    def attach(self, tree: int, target: int) -> None:
        """Put a detached tree on the file or directory of an O_PATH descriptor."""
        flags = MOVE_MOUNT_FROM_EMPTY | MOVE_MOUNT_TO_EMPTY
        linux.syscall("mount", "move_mount", _SYS_MOVE_MOUNT, tree, b"", target, b"", flags)

    def overlay(self, lower: int, layers: int) -> int:
        """A detached copy-on-write view of the detached tree `lower`, whose changes go to `upper` of the tree `layers`.

        It is put together in the working directory, of which nothing is left. All that it notes beside files are `user.overlay.*`
        attributes, which whoever owns the files can read, and which the kernel keeps from who works in it (`userxattr`; kernel
        documentation, filesystems/overlayfs). Directories are not renamed by a note: that would need a reader who believes it.
        """
        for name, tree in (("lower", lower), ("layers", layers)):
            os.mkdir(name, 0o700)
            place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.attach(tree, place)
            os.close(place)
        context = linux.syscall("overlay", "fsopen of overlay", _SYS_FSOPEN, b"overlay", _CLOEXEC)
        try:
            for key, value in OVERLAY.items():
                self._configure(context, _SET_STRING, key, value)
            self._configure(context, _SET_FLAG, "userxattr")
            self._configure(context, _CREATE)
            return linux.syscall("overlay", "fsmount", _SYS_FSMOUNT, context, _CLOEXEC, NOSUID | NODEV)
        finally:
            os.close(context)
            for name in ("lower", "layers"):
                linux.checked("overlay", "umount2 of a layer", int(_libc.umount2(os.fsencode(name), ctypes.c_int(MNT_DETACH))))
                os.rmdir(name)

    @staticmethod
    def _configure(context: int, command: int, key: str = "", value: str = "") -> None:
        words = [text.encode() if text else ctypes.c_void_p() for text in (key, value)]
        linux.syscall("overlay", f"overlay {key}".strip(), _SYS_FSCONFIG, context, command, *words, 0)

    def make_root(self) -> None:
        """Make the mount that is the working directory the root, and stay in it (pivot_root(2)).

        The old root lies on top of it then, where no path without `..` leads, until `let_go`; a descriptor of it opened before
        still does.
        """
        number = _SYS_PIVOT_ROOT.get(platform.machine())
        if number is None:
            raise SandboxError(f"no call number known for {platform.machine()}.", step="pivot_root")
        linux.syscall("pivot_root", "pivot_root", number, b".", b".")
        os.chdir("/")

    def resize_root(self, size: int) -> None:
        """Let the root, made by `tmpfs`, hold another number of bytes."""
        self._mount(None, ".", None, MS_REMOUNT | MS_NOSUID | MS_NODEV, f"size={size}".encode())

    def let_go(self) -> None:
        """Part with the old root and everything in it, for good."""
        linux.checked("pivot_root", "umount2 of the old root", int(_libc.umount2(b".", ctypes.c_int(MNT_DETACH))))

    def seal_root(self) -> None:
        """Make the root itself read-only; what is mounted below keeps its own mode."""
        self._set(AT_FDCWD, b"/", 0, RDONLY | NOSUID | NODEV)

    @staticmethod
    def _set(directory: int, path: bytes, flags: int, attributes: int, users: int = -1, cleared: int = 0) -> None:
        packed = struct.pack("=QQQQ", attributes, cleared, 0, users if users >= 0 else 0)
        linux.syscall("mount", "mount_setattr", _SYS_MOUNT_SETATTR, directory, path, flags, packed, len(packed))

    @staticmethod
    def _mount(source: bytes | None, target: str, kind: bytes | None, flags: int, data: bytes | None) -> None:
        result = int(_libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), data))
        linux.checked("mount", f"mount on {target}", result)
