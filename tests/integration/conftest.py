"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon that is not started yet."""
    process = DaemonProcess(tmp_path)
    yield process
    process.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that runs, for all tests of a module that only use it."""
    process = DaemonProcess(tmp_path_factory.mktemp("daemon"))
    with process.running():
        yield process
