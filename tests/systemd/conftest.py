"""One machine for all tests here: it takes a while to boot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guest import ROOT, Guest


def _wheel(directory: Path) -> Path:
    """The project as it is now, as a wheel; its dependencies are in the image."""
    source = directory / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "supervisord_agents", "sandbox"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-input", "--no-deps", "-w", str(directory), str(source)]
    subprocess.run(pip, stdin=subprocess.DEVNULL, check=True)
    (wheel,) = directory.glob("agent_supervisor-*.whl")
    return wheel


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A booted machine with the project's wheel and units in /given; nothing is installed yet."""
    directory = tmp_path_factory.mktemp("guest")
    wheel = _wheel(directory)
    guest = Guest(directory, {wheel.name: wheel, "systemd": ROOT / "systemd"})
    try:
        guest.boot()
        yield guest
    finally:
        guest.close()
