"""Emptying a directory that somebody else filled: however deep, however many, and with links laid where they hurt."""

from __future__ import annotations

import itertools
import os
import secrets
import time

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty(path: str, *, within_s: float, keep: frozenset[str] = frozenset()) -> None:
    """Remove all that lies in a directory, except for the paths in `keep`; nobody else may write there meanwhile.

    Never leaves the file system of the directory, follows no link, and needs few descriptors and little stack for any depth: the
    directories inside a directory are moved up before it is removed. Raises OSError if something cannot be removed, TimeoutError
    (one of those) if it takes longer.
    """
    work = _Work(time.monotonic() + within_s)
    root = os.open(path, _DIRECTORY)
    try:
        device = os.fstat(root).st_dev
        while names := [name for name in os.listdir(root) if f"{path}/{name}" not in keep]:
            for name in names:
                work.remove(root, name, device)
    finally:
        os.close(root)


class _Work:
    def __init__(self, until: float) -> None:
        self._until = until
        # Not to be guessed: a directory of that name, laid there before, would stop the move.
        self._new_names = map(f".{secrets.token_hex(8)}.{{}}".format, itertools.count())

    def remove(self, root: int, name: str, device: int) -> None:
        """Remove a file, or a directory whose directories then lie in `root`."""
        if self._unlinked(root, name):
            return
        directory = os.open(name, _DIRECTORY, dir_fd=root)
        try:
            if os.fstat(directory).st_dev != device:
                raise OSError(f"something is mounted on {name}")
            for inner in os.listdir(directory):
                if not self._unlinked(directory, inner):
                    os.rename(inner, next(self._new_names), src_dir_fd=directory, dst_dir_fd=root)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=root)

    def _unlinked(self, parent: int, name: str) -> bool:
        """Whether it was a file and is gone; a directory is made open to us instead."""
        if time.monotonic() > self._until:
            raise TimeoutError("there was too much to remove")
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            os.chmod(name, 0o700, dir_fd=parent)
            return False
        return True
