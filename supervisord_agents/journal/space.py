"""Room on the disk, taken before it is needed: a spare for the next segment, and a reserve for when there is no other room."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.journal.files import NO_SPACE, Files

SPARE_NAME = "spare"
RESERVE_NAME = "reserve"
SMALLEST_BYTES = 64 * 1024
"""A segment smaller than this is not worth beginning, unless segments are meant to be."""


class Room(NamedTuple):
    """A preallocated file that reads as zeros, to become a segment."""

    descriptor: int
    path: Path
    size: int


class Space:
    """Gives preallocated files.

    `accepting` turns False for want of room, and True again only by `reclaim`; `why` says what failed.
    """

    def __init__(self, directory: Path, segment_bytes: int, reserve_bytes: int, files: Files) -> None:
        self.accepting = True
        self.why = ""
        self._spare = directory / SPARE_NAME
        self._reserve = directory / RESERVE_NAME
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._has_spare = False
        self._files = files

    def take(self, size: int, *, starting: bool = False) -> Room:
        """Room for `size` bytes or more: a whole segment, else the reserve, else the largest smaller one that fits.

        A daemon that is `starting` keeps the reserve for last. Raises OSError if nothing gives the room.
        """
        self._has_spare = False
        smaller = [(self._spare, room) for room in self._smaller(size)]
        reserve = [(self._reserve, max(size, self._reserve_bytes))] if self._files.exists(self._reserve) else []
        fallbacks = [*smaller, *reserve] if starting else [*reserve, *smaller]
        room = self._first_that_fits([(self._spare, max(size, self._segment_bytes)), *fallbacks])
        if room is None:
            raise OSError(errno.ENOSPC, self.why, str(self._spare))
        return room

    def _first_that_fits(self, choices: list[tuple[Path, int]]) -> Room | None:
        for path, size in choices:
            try:
                return self._open(path, size)
            except OSError as error:
                self._refuse(error)
                self._remove(path)
                if error.errno not in NO_SPACE:
                    raise
        return None

    def _smaller(self, size: int) -> Iterator[int]:
        """Sizes to try in place of a whole segment, largest first."""
        smallest = max(size, min(self._segment_bytes, SMALLEST_BYTES))
        half = self._segment_bytes // 2
        while half > smallest:
            yield half
            half //= 2
        yield smallest

    def release_reserve(self, error: OSError) -> bool:
        """Give all room back to the file system; False if there was no reserve."""
        self._refuse(error)
        existed = self._files.exists(self._reserve)
        self.drop_spare()
        self._remove(self._reserve)
        return existed

    def prepare(self) -> None:
        """Have a spare. Without room for one, `accepting` turns False: the reserve is for what is urgent."""
        if self.accepting and not self._has_spare:
            self._has_spare = self._allocated(self._spare, self._segment_bytes)

    def reclaim(self) -> None:
        """Have the reserve and a spare, and accept if there is room for both."""
        self.accepting = True
        if self._allocated(self._reserve, self._reserve_bytes):
            self.prepare()

    def drop_spare(self) -> None:
        self._has_spare = False
        self._remove(self._spare)

    def _allocated(self, path: Path, size: int) -> bool:
        try:
            self._files.close(self._open(path, size).descriptor)
        except OSError as error:
            self._refuse(error)
            self._remove(path)
            return False
        return True

    def _open(self, path: Path, size: int) -> Room:
        descriptor = self._files.open(path) if self._files.exists(path) else self._files.create(path)
        try:
            self._files.allocate(descriptor, size)
        except OSError:
            self._files.close(descriptor)
            raise
        return Room(descriptor, path, size)

    def _refuse(self, error: OSError) -> None:
        self.accepting = False
        self.why = os.strerror(error.errno) if error.errno else str(error)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._files.remove(path)
