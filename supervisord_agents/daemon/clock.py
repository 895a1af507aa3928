"""The supervisor's clock: wall time that never runs backwards and never jumps while the daemon lives."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Seconds since the Unix epoch, anchored once and then carried by CLOCK_BOOTTIME (clock_gettime(2)).

    That clock counts suspended time and ignores changes of the wall clock. `floor` is the last time in the journal: a wall clock
    set back between two runs does not reorder history.
    """

    def __init__(self, floor: float = 0.0) -> None:
        self._anchor = max(time.time(), floor) - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        return self._anchor + time.clock_gettime(time.CLOCK_BOOTTIME)


def iso(seconds: float) -> str:
    """ISO 8601 in UTC; empty for 0."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if seconds else ""
