"""The real daemon on a disk that can be made small or broken while it runs: the entry of FaultyDaemon below.

The directory $DISK_FAULTS holds the faults: `capacity`, with the bytes that the journal may have in all, and `sync_fails`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from supervisord_agents.daemon import app
from tests.support.daemon import ROOT, DaemonProcess
from tests.support.hasty_daemon import hasten_looks
from tests.support.journal import SmallDisk

VARIABLE = "DISK_FAULTS"


SMALL_JOURNAL = """
[pools.standard]
min_workers = 1
max_workers = 2
scaling = "on-demand"
[tasks]
backoff_s = 0.05
[journal]
segment_bytes = 65536
reserve_bytes = 65536
"""
"""A configuration with which little space is soon used up."""


class FaultyDaemon(DaemonProcess):
    """A daemon whose disk the test holds in its hands."""

    def __init__(self, directory: Path, config: str = "") -> None:
        super().__init__(directory, config)
        self.faults = directory / "faults"
        self.faults.mkdir()
        self.environment |= {VARIABLE: str(self.faults), "PYTHONPATH": str(ROOT)}
        self.argv = [sys.executable, "-m", "tests.support.faulty_daemon"]

    @property
    def used(self) -> int:
        """Bytes that the journal has on the disk."""
        return sum(path.stat().st_size for path in (self.state / "journal").iterdir())

    def shrink_disk(self, room: int) -> None:
        """Leave so many bytes for the journal to grow."""
        temporary = self.faults / "capacity.new"
        temporary.write_text(str(self.used + room))
        temporary.rename(self.faults / "capacity")

    def grow_disk(self) -> None:
        """There is room again."""
        (self.faults / "capacity").unlink()

    def break_sync(self) -> None:
        """From now on no data reach the disk, and the kernel says so."""
        (self.faults / "sync_fails").touch()

    def mend_sync(self) -> None:
        (self.faults / "sync_fails").unlink()


def _disk(faults: Path) -> SmallDisk:
    def capacity() -> int | None:
        try:
            return int((faults / "capacity").read_text())
        except FileNotFoundError:
            return None

    return SmallDisk(capacity, (faults / "sync_fails").exists)


if __name__ == "__main__":
    hasten_looks()
    sys.exit(app.main(files=_disk(Path(os.environ[VARIABLE]))))
