"""What a view begins with: a copy of the workspace, or only a note of all that is in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat

import msgspec

from supervisord_agents.errors import InvalidInput
from supervisord_agents.workspaces.paths import FILE, Found, LeftOut, walk
from supervisord_agents.workspaces.stamps import CHUNK_BYTES, DIGEST_BYTES, Base, Stamp, stamp

_FICLONE = 0x40049409
_NOT_TO_BE_READ = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO, errno.ELOOP})


class Limits(msgspec.Struct, frozen=True):
    """Of one view."""

    files: int
    bytes: int


def noted(workspace: int, limits: Limits, left_out: LeftOut) -> Base:
    """What lies in a workspace now. Raises InvalidInput if it is too much."""
    base: Base = {}
    for found in walk(workspace, left_out):
        _count(len(base), limits)
        with contextlib.suppress(FileNotFoundError):
            base[found.path] = stamp(found.info, found.name, found.parent)
    return base


def copied(workspace: int, tree: int, limits: Limits, left_out: LeftOut) -> Base:
    """Copy a workspace into an empty directory; gives what was copied. Raises InvalidInput if it is too much, OSError."""
    return _Copy(tree, limits, left_out).of(workspace)


class _Copy:
    """One copy. Hard links become files of their own; owners become ours; of modes the permissions are kept."""

    def __init__(self, tree: int, limits: Limits, left_out: LeftOut) -> None:
        self._limits = limits
        self._left_out = left_out
        self._bytes = 0
        self._base: Base = {}
        self._open = {b"": tree}
        """The directories on the way to where the copy is, by path."""
        self._closed: list[tuple[bytes, int]] = []

    def of(self, workspace: int) -> Base:
        tree = self._open[b""]
        for found in walk(workspace, self._left_out):
            _count(len(self._base), self._limits)
            self._leave(found.path)
            parent = self._open[found.path.rpartition(b"/")[0]]
            with contextlib.suppress(FileNotFoundError):
                self._base[found.path] = self._taken(found, parent)
        self._leave(b"")
        self._open = {b"": tree}
        return self._base

    def _leave(self, path: bytes) -> None:
        """Give the modes of directories that are whole, innermost first."""
        for whole in [known for known in reversed(self._open) if known and not path.startswith(known + b"/")]:
            descriptor = self._open.pop(whole)
            os.fchmod(descriptor, self._base[whole].mode & 0o777)
            os.close(descriptor)

    def _taken(self, found: Found, parent: int) -> Stamp:
        before = stamp(found.info, found.name, found.parent)
        if before.kind == "directory":
            os.mkdir(found.name, 0o700, dir_fd=parent)
            self._base[found.path] = before
            self._open[found.path] = os.open(found.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
            return before
        if before.kind == "link":
            os.symlink(before.target, found.name, dir_fd=parent)
            return _with_copy(before, os.stat(found.name, dir_fd=parent, follow_symlinks=False))
        if before.kind == "file":
            return self._file(found, before, parent)
        return self._hidden(found, before, "it is neither file, directory nor link")

    def _hidden(self, found: Found, before: Stamp, why: str) -> Stamp:
        self._left_out.append((found.path, why))
        return msgspec.structs.replace(before, hidden=True)

    def _file(self, found: Found, before: Stamp, parent: int) -> Stamp:
        try:
            source = os.open(found.name, FILE, dir_fd=found.parent)
        except OSError as error:
            if error.errno not in _NOT_TO_BE_READ:
                raise
            return self._hidden(found, before, os.strerror(error.errno))
        try:
            info = os.fstat(source)
            if not stat.S_ISREG(info.st_mode):
                return self._hidden(found, before, "it was exchanged meanwhile")
            target = os.open(found.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
            try:
                digest = self._content(source, target, info.st_size)
                os.fchmod(target, info.st_mode & 0o777)
                os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
                return _with_copy(msgspec.structs.replace(stamp(info), digest=digest), os.fstat(target))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _content(self, source: int, target: int, size: int) -> bytes:
        """Share the blocks where the file system can, which leaves the digest unknown; else copy them."""
        self._add(size)
        with contextlib.suppress(OSError):
            fcntl.ioctl(target, _FICLONE, source)
            return b""
        self._bytes -= size
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        while piece := os.read(source, CHUNK_BYTES):
            self._add(len(piece))
            digest.update(piece)
            written = 0
            while written < len(piece):
                written += os.write(target, piece[written:])
        return digest.digest()

    def _add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.bytes:
            raise InvalidInput(
                f"holds more than {self._limits.bytes} bytes, too much for a copy.",
                field="workspace",
                hint="Use the mode overlay, which copies nothing, or raise workspaces.copy_limit_bytes.",
            )


def _with_copy(before: Stamp, copy: os.stat_result) -> Stamp:
    return msgspec.structs.replace(before, view_inode=copy.st_ino, view_ctime_ns=copy.st_ctime_ns)


def _count(count: int, limits: Limits) -> None:
    if count >= limits.files:
        raise InvalidInput(
            f"holds more than {limits.files} files and directories, too many for a view of it.",
            field="workspace",
            hint="Use the mode dir, a smaller directory, or raise workspaces.limit_files.",
        )
