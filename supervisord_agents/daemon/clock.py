"""The supervisor's clock: wall time that never runs backwards and never jumps while the daemon lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Read = Callable[[], float]


def wall_time() -> float:
    """Seconds since the Unix epoch, as the machine has them."""
    return time.time()


def boot_time() -> float:
    """Seconds since the machine started, with those that it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def awake_time() -> float:
    """Seconds since the machine started, without those that it was suspended."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


NOTICED_S = 0.5
"""A shorter sleep is none: the two clocks are not read at the same moment."""


class Sleeps:
    """The suspensions of the machine: by how much CLOCK_BOOTTIME gets ahead of CLOCK_MONOTONIC (clock_gettime(2))."""

    def __init__(self, *, boot: Read = boot_time, awake: Read = awake_time) -> None:
        self._boot = boot
        self._awake = awake
        self._asleep_s = boot() - awake()

    def seconds(self) -> float:
        """How long it slept since this was last asked; 0 for not at all."""
        before, self._asleep_s = self._asleep_s, self._boot() - self._awake()
        slept_s = self._asleep_s - before
        if slept_s >= NOTICED_S:
            return slept_s
        self._asleep_s = before
        return 0.0


class Clock:
    """Seconds since the Unix epoch, anchored once and then carried by CLOCK_BOOTTIME (clock_gettime(2)).

    That clock counts suspended time and ignores changes of the wall clock. `floor` is the last time in the journal: a wall clock
    set back between two runs does not reorder history.
    """

    def __init__(self, floor: float = 0.0, *, wall: Read = wall_time, boot: Read = boot_time) -> None:
        self._boot = boot
        self._anchor = max(wall(), floor) - boot()

    def now(self) -> float:
        return self._anchor + self._boot()


def iso(seconds: float) -> str:
    """ISO 8601 in UTC; empty for 0."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if seconds else ""
