"""What it costs to hand a task over: from the claim of a worker until it has the task, and so knows what to do."""

from __future__ import annotations

NEWEST = 0.1
"""Weight of the newest in the running average."""


class Overhead:
    """A running average. It begins with what it is before anything was measured."""

    def __init__(self, prior_s: float) -> None:
        self.seconds = prior_s

    def told(self, seconds: float) -> None:
        """A worker was given its task so long after it was claimed."""
        self.seconds += NEWEST * (seconds - self.seconds)
