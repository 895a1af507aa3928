"""What running attempts have consumed so far, in a file each: `meters/<task>`, for a daemon that takes an attempt over.

A count is written when it changes, and outlives the daemon; it is not synced, for a power cut ends the attempt as well. A file
that cannot be read or written counts as none.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from supervisord_agents.core.model import Usage


class Count(NamedTuple):
    """Of one attempt."""

    attempt: int
    usage: Usage


class Meters:
    """The counts of one state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, task: str, count: Count) -> None:
        """Replace the task's count."""
        path = self._directory / task
        with contextlib.suppress(OSError):
            new = path.with_name(f".{task}")
            new.write_bytes(msgspec.msgpack.encode(count))
            os.replace(new, path)

    def remove(self, task: str) -> None:
        with contextlib.suppress(OSError):
            (self._directory / task).unlink(missing_ok=True)

    def left(self) -> dict[str, Count]:
        """What an earlier daemon has left, by task."""
        found = {}
        for path in self._directory.iterdir():
            with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                found[path.name] = msgspec.msgpack.decode(path.read_bytes(), type=Count)
        return found
