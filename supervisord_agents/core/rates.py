"""How often something may begin: the generic cell rate algorithm (ITU-T I.371), a leaky bucket in one number."""

from __future__ import annotations

_EPSILON = 1e-9


class Rate:
    """At most `per_s` a second on the long run, and a second's worth at once, one at least."""

    __slots__ = ("_burst_s", "_due", "_every_s")

    def __init__(self, per_s: float) -> None:
        self._every_s = 1.0 / per_s
        self._burst_s = max(1.0, self._every_s)
        self._due = 0.0
        """When the next would be due, if they came evenly."""

    def left(self, now: float) -> int:
        """How many may begin now."""
        return max(0, int((self._burst_s - max(self._due - now, 0.0)) / self._every_s + _EPSILON))

    def next_at(self, now: float) -> float:
        """When one more may begin than now."""
        return max(self._due, now) - self._burst_s + (self.left(now) + 1) * self._every_s

    def take(self, now: float) -> None:
        """One begins, whether it may or not."""
        self._due = max(self._due, now) + self._every_s
