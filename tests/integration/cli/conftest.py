"""A real supervisor for each module, and the real agentctl as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.agentctl import Agentctl, Gate
from tests.support.daemon import DaemonProcess

CONFIG = """
[journal]
segment_bytes = 1048576
reserve_bytes = 1048576
[tasks]
backoff_s = 0.01
[pools.standard]
min_workers = 1
scaling = "on-demand"
[pools.critical]
max_workers = 2
scaling = "on-demand"
"""


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Started once for all tests of a module: they name the tasks that they look at."""
    process = DaemonProcess(tmp_path_factory.mktemp("supervisor"), CONFIG)
    with process.running():
        yield process


@pytest.fixture
def agentctl(supervisor: DaemonProcess, tmp_path: Path) -> Agentctl:
    return Agentctl(supervisor.socket, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "workspace")
