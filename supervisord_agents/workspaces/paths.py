"""Reaching files below a directory by descriptors, never through a link: whoever works in the tree can put one anywhere."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from sandbox import linux

MAX_DEPTH = 200
"""Of directories in each other; a descriptor is open for each."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Without waiting for the other end of a FIFO, whatever else has taken the place of the file."""
_RESOLVE_NO_XDEV, _RESOLVE_BENEATH = 0x01, 0x08
_BENEATH = _RESOLVE_BENEATH | _RESOLVE_NO_XDEV | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_MAGICLINKS
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
LeftOut = list[tuple[bytes, str]]
"""Paths that were left out, each with the reason."""


class Found(NamedTuple):
    """Something in a tree. `descriptor` is that of a directory while what lies in it is being told, else -1."""

    path: bytes
    name: str
    parent: int
    info: os.stat_result
    descriptor: int


def walk(root: int, left_out: LeftOut, *, own: bool = False) -> Iterator[Found]:
    """Everything below a directory, each directory before what lies in it, in the order of names.

    It stays on the file system of the root. With `own` the tree is ours alone, and closed directories are opened first.
    """
    yield from _walk(root, b"", os.fstat(root).st_dev, left_out, own, MAX_DEPTH)


def _walk(directory: int, path: bytes, device: int, left_out: LeftOut, own: bool, depth: int) -> Iterator[Found]:
    for name in sorted(os.listdir(directory)):
        inner = _joined(path, name)
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            left_out.append((inner, _reason(error)))
            continue
        if not _is_directory(info):
            yield Found(inner, name, directory, info, -1)
            continue
        descriptor = _entered(directory, name, info, device, own, depth, (inner, left_out))
        try:
            yield Found(inner, name, directory, info, descriptor)
            if descriptor >= 0:
                yield from _walk(descriptor, inner, device, left_out, own, depth - 1)
        finally:
            if descriptor >= 0:
                if own and info.st_mode & 0o700 != 0o700:
                    os.fchmod(descriptor, info.st_mode & 0o7777)
                os.close(descriptor)


def _is_directory(info: os.stat_result) -> bool:
    return info.st_mode & 0o170000 == 0o040000


def _entered(
    directory: int, name: str, info: os.stat_result, device: int, own: bool, depth: int, told: tuple[bytes, LeftOut]
) -> int:
    """The opened directory, or -1, and then it is told why."""
    path, left_out = told
    if info.st_dev != device:
        left_out.append((path, "another file system is mounted there"))
        return -1
    if depth <= 0:
        left_out.append((path, f"it lies deeper than {MAX_DEPTH} directories"))
        return -1
    try:
        if own and info.st_mode & 0o700 != 0o700:
            os.chmod(name, 0o700, dir_fd=directory)
        return os.open(name, DIRECTORY, dir_fd=directory)
    except OSError as error:
        left_out.append((path, _reason(error)))
        return -1


def _joined(path: bytes, name: str) -> bytes:
    return path + b"/" + os.fsencode(name) if path else os.fsencode(name)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)


def directory_of(root: int, path: bytes) -> tuple[int, str]:
    """A descriptor (O_PATH) of the directory that a path lies in, and the last name. Raises OSError.

    ELOOP: there is a link on the way; EXDEV: another file system, or a way out of the root.
    """
    above, _, name = path.rpartition(b"/")
    if name in (b"", b".", b".."):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    return linux.open_path(os.fsdecode(above) or ".", _BENEATH, root), os.fsdecode(name)


def opened(root: int, path: bytes, flags: int) -> int:
    """A descriptor of what lies at a path, not through a link. Raises OSError as `directory_of` does."""
    parent, name = directory_of(root, path)
    try:
        return os.open(name, flags, dir_fd=parent)
    finally:
        os.close(parent)


def exchange(first: tuple[int, str], second: tuple[int, str]) -> None:
    """Let two names in directories change places, at once (renameat2(2)). Raises OSError."""
    _rename(first, second, _RENAME_EXCHANGE)


def move(source: tuple[int, str], target: tuple[int, str]) -> None:
    """Rename to a name that is free. Raises OSError, FileExistsError if it is not."""
    _rename(source, target, _RENAME_NOREPLACE)


def _rename(source: tuple[int, str], target: tuple[int, str], flags: int) -> None:
    arguments = [*_words(source), *_words(target), ctypes.c_uint(flags)]
    if _libc.renameat2(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target[1])


def _words(place: tuple[int, str]) -> tuple[ctypes.c_int, bytes]:
    return ctypes.c_int(place[0]), os.fsencode(place[1])


def sync(directory: int) -> None:
    """Put all on disk that the file system of a directory holds (syncfs(2)). Raises OSError."""
    descriptor = os.open(".", DIRECTORY, dir_fd=directory)
    try:
        if _libc.syncfs(ctypes.c_int(descriptor)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
