"""One writer a journal: flock(2) on a file in its directory, which also names the owner."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol

from supervisord_agents.errors import JournalLocked

LOCK_NAME = "lock"


class Lock(Protocol):
    """A directory that nobody else may write."""

    def release(self) -> None: ...


class DirectoryLock:
    """Held until `release`, or until the last process that inherited the descriptor has ended.

    Raises JournalLocked, naming the owner, if another process has it.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise locked(directory, owner) from None
        # The name of the owner is a courtesy: on a full disk there may be no room for it.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def locked(directory: Path, owner: str) -> JournalLocked:
    return JournalLocked(
        f"process {owner} owns the journal.",
        field=str(directory),
        kept="Nothing was changed.",
        hint="Stop that daemon first, or give this one a state directory of its own.",
    )
