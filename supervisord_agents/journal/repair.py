"""Looking at a journal, and salvaging one that is damaged. `verify`, `dump` and `stats` change nothing and take no lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """Something wrong. `fatal`: the daemon refuses to start with it; else it is mended at the next start."""

    path: Path
    offset: int
    what: str
    fatal: bool


class Entry(NamedTuple):
    """One record as it lies on disk. `kind` is "payload" or "clean end"."""

    sequence: int
    kind: str
    payload: bytes
    path: Path
    offset: int


class Report(NamedTuple):
    """What a repair did. `lost` holds ranges of sequences, both ends included."""

    repaired: bool
    """False: nothing was wrong, nothing was changed."""
    kept_in: Path | None
    """The copy of the directory as it was."""
    findings: list[Finding]
    records_kept: int
    records_lost: int
    lost: list[tuple[int, int]]
    snapshot_sequence: int


class Stats(NamedTuple):
    """Sizes in bytes; `bytes` is what lies on disk in all, with preallocated room."""

    segments: int
    records: int
    first_sequence: int
    last_sequence: int
    snapshot_sequence: int
    snapshot_bytes: int
    record_bytes: int
    bytes: int


def verify(directory: Path) -> list[Finding]:
    """All that is wrong with the journal; empty for a sound one. Raises NotFound if there is no journal."""
    raise NotImplementedError


def dump(directory: Path) -> Iterator[Entry]:
    """Every whole record in order, also behind damage. Raises NotFound if there is no journal."""
    raise NotImplementedError


def stats(directory: Path) -> Stats:
    """Figures of the journal, of what can be read of it. Raises NotFound if there is no journal."""
    raise NotImplementedError


def repair(directory: Path) -> Report:
    """Salvage every whole record of a damaged journal, after a copy of it is made beside it (`<name>.damaged`).

    Raises JournalLocked while a daemon runs on it, NotFound if there is no journal, DiskFull without room for the copy.
    """
    raise NotImplementedError
