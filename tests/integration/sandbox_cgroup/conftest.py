from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox.cgroup import Cgroups, Group
from tests.support.cgroups import Start


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """Cgroups under a name of this test run; whatever a failed test leaves is swept."""
    found = Cgroups.detect(f"test-{os.getpid()}")
    if found.backend == "none":
        if os.environ.get("CI"):
            pytest.fail(f"in CI nothing may be missing: {found.reason}")
        pytest.skip(found.reason)
    yield found
    found.sweep()
    found.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python code in a group: it begins when it has been attached."""
    started: list[subprocess.Popen[str]] = []

    def run(group: Group, code: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-I", "-S", "-c", "import os, signal, sys, time\nsys.stdin.read(1)\n" + code]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        group.attach(process.pid)
        assert process.stdin is not None
        process.stdin.write("go")
        process.stdin.close()
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
