"""Fixtures of the journal's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory where there is one: for tests of thousands of syncs that take their loss of power from a model."""
    parent = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="journal-", dir=parent if parent.is_dir() else None) as name:
        yield Path(name)
