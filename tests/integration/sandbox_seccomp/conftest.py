"""The filter, compiled once as the spawner does it."""

from __future__ import annotations

import pytest

from sandbox.seccomp import compile_filter
from tests.support.filtered import marked


@pytest.fixture(scope="session")
def program() -> bytes:
    return compile_filter()


@pytest.fixture(scope="session")
def marked_program(program: bytes) -> bytes:
    return marked(program)
