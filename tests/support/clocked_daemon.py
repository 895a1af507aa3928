"""The real daemon under a wall clock that the test sets; no other clock is touched, as when a person or NTP sets it.

$WALL_CLOCK names a file with the step in seconds. libfaketime would do the same from outside, but it spoils what the sandbox's
processes wait by.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from supervisord_agents.daemon import app
from tests.support.daemon import ROOT, DaemonProcess

VARIABLE = "WALL_CLOCK"


class ClockedDaemon(DaemonProcess):
    """A daemon whose wall clock the test has in its hands."""

    def __init__(self, directory: Path, config: str = "") -> None:
        super().__init__(directory, config)
        self._step = directory / "step"
        self.step_clock(0.0)
        self.environment |= {VARIABLE: str(self._step), "PYTHONPATH": str(ROOT)}
        self.argv = [sys.executable, "-m", "tests.support.clocked_daemon"]

    def step_clock(self, seconds: float) -> None:
        """From now on the wall clock is so much ahead of the true time."""
        temporary = self.directory / "step.new"
        temporary.write_text(str(seconds))
        temporary.rename(self._step)


if __name__ == "__main__":
    true_time, step = time.time, Path(os.environ[VARIABLE])
    time.time = lambda: true_time() + float(step.read_text())
    sys.exit(app.main())
