"""What the cgroup tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from sandbox.cgroup import Group

Start = Callable[[Group, str], "subprocess.Popen[str]"]
"""Start Python code in a group."""
