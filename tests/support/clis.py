"""Where the real worker CLIs of the end-to-end tests are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parents[2] / "build" / "clis" / "node_modules" / ".bin"


def cli(name: str) -> str:
    """The path of an installed CLI; skips the test, with the reason, where `make test` could not install it."""
    path = DIRECTORY / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed under {DIRECTORY}: in CI nothing may be missing")
        pytest.skip(f"{name} is not installed under {DIRECTORY}: run `make clis`")
    return str(path)
