"""The directory of one worker on the daemon's side: `outbox` and `stderr`, which the worker has as open files only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import structlog

from supervisord_agents.errors import ProtocolError
from supervisord_agents.wire import frames
from supervisord_agents.workers import outbox

OUTBOX = "outbox"
STDERR = "stderr"
LAST_WORDS_BYTES = 2_000
log = structlog.get_logger()


class Nest:
    """Made empty, unless it was `left` by an earlier daemon. Raises OSError."""

    def __init__(self, directory: Path, *, empty: bool = True) -> None:
        self._directory = directory
        self._descriptors: list[int] = []
        if empty:
            directory.mkdir(parents=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptors = [os.open(directory / name, flags, 0o600) for name in (OUTBOX, STDERR)]

    @classmethod
    def left(cls, directory: Path) -> Nest:
        """The one of a worker that has it already."""
        return cls(directory, empty=False)

    @property
    def descriptors(self) -> dict[int, int]:
        """For the worker, by its number."""
        return dict(zip((frames.OUTBOX_FD, 2), self._descriptors, strict=True))

    def handed_over(self) -> None:
        """Close our copies: the worker has its own."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def end_of(self, task: str, attempt: int) -> frames.End | None:
        """The end of this very attempt, if the worker left it."""
        return end_left(self._directory, task, attempt)

    def last_words(self) -> str:
        """What the worker said last on its way out."""
        with contextlib.suppress(OSError), (self._directory / STDERR).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            return file.read().decode(errors="replace").strip()
        return ""

    def remove(self) -> None:
        """Remove it; what cannot be removed is left for the next start."""
        with contextlib.suppress(OSError):
            for name in (OUTBOX, STDERR):
                (self._directory / name).unlink(missing_ok=True)
            self._directory.rmdir()


def end_left(directory: Path, task: str, attempt: int) -> frames.End | None:
    """The end of an attempt in a worker's directory; an outbox that is damaged is logged, and counts as empty."""
    try:
        end = outbox.read(directory / OUTBOX)
    except FileNotFoundError:
        return None
    except (OSError, ProtocolError) as error:
        log.warning("outbox_skipped", worker=directory.name, task=task, reason=str(error))
        return None
    return end if end is not None and (end.task, end.attempt) == (task, attempt) else None
