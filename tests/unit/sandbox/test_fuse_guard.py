"""The guard before the only mount of the tests, that of tests/support/lossy_mount.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STILL_HERE = """
from sandbox import linux
linux.unshare = lambda flags: None
from tests.support import lossy_mount
lossy_mount.enter_own_mount_namespace()
print("entered")
"""


def test_it_refuses_the_namespace_of_its_parent() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    done = subprocess.run([sys.executable, "-c", STILL_HERE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "refused to mount" in done.stderr
    assert "entered" not in done.stdout
    assert Path("/proc/self/mountinfo").read_text() == before
