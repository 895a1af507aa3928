"""What lies at a path, in so many numbers that a change of it shows, and the trees of them that a task began with."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Literal

import msgspec

Kind = Literal["file", "directory", "link", "special"]
DIGEST_BYTES = 20
CHUNK_BYTES = 1 << 20


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """A file, directory or link as it was once. `mode` has the permission bits, times are nanoseconds."""

    kind: Kind
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    target: bytes = b""
    """Of a link."""
    digest: bytes = b""
    """Of a file's content, where it was read anyway; empty: not known."""
    hidden: bool = False
    """The view does not have it: it could not be read, or is neither file, directory nor link."""
    view_inode: int = 0
    view_ctime_ns: int = 0
    """Of its copy, as that was handed over: nobody without privileges can set the time of a change (inode(7))."""
    blob: str = ""
    """Where it comes from a commit: its object there."""


Base = dict[bytes, Stamp]
"""A tree, by path relative to its root."""


def kind_of(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "special"


def stamp(info: os.stat_result, name: str = "", parent: int = -1) -> Stamp:
    """Of what lstat(2) has told; the name and the directory that it is in are needed for links. Raises OSError."""
    kind = kind_of(info.st_mode)
    return Stamp(
        kind=kind,
        mode=stat.S_IMODE(info.st_mode),
        size=info.st_size if kind == "file" else 0,
        mtime_ns=info.st_mtime_ns,
        ctime_ns=info.st_ctime_ns,
        inode=info.st_ino,
        target=os.fsencode(os.readlink(name, dir_fd=parent)) if kind == "link" else b"",
    )


def untouched(before: Stamp, now: Stamp) -> bool:
    """Whether nothing has been done to it for certain; of a directory only its mode counts."""
    if before.kind == "directory":
        return now.kind == "directory" and before.mode == now.mode
    numbers = ("kind", "mode", "size", "mtime_ns", "ctime_ns", "inode", "target")
    return all(getattr(before, name) == getattr(now, name) for name in numbers)


def digest(descriptor: int) -> bytes:
    """Of a file's content, from where the descriptor stands. Raises OSError."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    while piece := os.read(descriptor, CHUNK_BYTES):
        found.update(piece)
    return found.digest()


def digest_and_close(descriptor: int) -> bytes:
    """The same, of a descriptor that nobody needs any more; empty if the file cannot be read."""
    try:
        return digest(descriptor)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def encode(base: Base) -> bytes:
    return msgspec.msgpack.encode(list(base.items()))


def decode(data: bytes) -> Base:
    """Raises msgspec.MsgspecError."""
    return dict(msgspec.msgpack.decode(data, type=list[tuple[bytes, Stamp]]))
