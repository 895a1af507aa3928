"""Room on the disk, taken before it is needed: a spare for the next segment, and a reserve for when there is no other room."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from supervisord_agents.journal.files import NO_SPACE, Files

SPARE_NAME = "spare"
RESERVE_NAME = "reserve"


class Room(NamedTuple):
    """A preallocated file that reads as zeros, to become a segment."""

    descriptor: int
    path: Path
    size: int


class Space:
    """Gives preallocated files. `accepting` turns False when the disk is full, and True again only by `reclaim`."""

    def __init__(self, directory: Path, segment_bytes: int, reserve_bytes: int, files: Files) -> None:
        self.accepting = True
        self._spare = directory / SPARE_NAME
        self._reserve = directory / RESERVE_NAME
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._files = files

    def take(self, size: int) -> Room:
        """Room for `size` bytes or more. Raises OSError if not even the reserve is enough."""
        wanted = max(size, self._segment_bytes)
        try:
            return self._open(self._spare, wanted)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self.accepting = False
            self._remove(self._spare)
            if not self._reserve.exists():
                raise
        return self._open(self._reserve, max(size, self._reserve_bytes))

    def release_reserve(self) -> bool:
        """Give the reserve back to the file system; False if there is none."""
        self.accepting = False
        existed = self._reserve.exists()
        self._remove(self._spare)
        self._remove(self._reserve)
        return existed

    def prepare(self) -> None:
        """Have a spare. Without room for one, `accepting` turns False: the reserve is for what is urgent. Raises OSError."""
        if self.accepting and not self._spare.exists():
            self.accepting = self._allocated(self._spare, self._segment_bytes)

    def reclaim(self) -> None:
        """Have the reserve and a spare again, and accept if there is room for both. Raises OSError."""
        self.accepting = self._allocated(self._reserve, self._reserve_bytes) and self._allocated(self._spare, self._segment_bytes)

    def drop_spare(self) -> None:
        self._remove(self._spare)

    def _allocated(self, path: Path, size: int) -> bool:
        try:
            self._files.close(self._open(path, size).descriptor)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._remove(path)
            return False
        return True

    def _open(self, path: Path, size: int) -> Room:
        descriptor = self._files.open(path) if path.exists() else self._files.create(path)
        try:
            self._files.allocate(descriptor, size)
        except OSError:
            self._files.close(descriptor)
            raise
        return Room(descriptor, path, size)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._files.remove(path)
