"""What a start needs, and what it says when it cannot have it."""

from __future__ import annotations

import resource
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import BIN, DaemonProcess


@pytest.mark.parametrize("place", ["/proc/nope", "/dev/null/x", "{tmp}/file", "{tmp}/file/below"])
def test_a_state_directory_that_cannot_be_is_named_in_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    state = place.format(tmp=tmp_path)
    argv = [str(BIN / "agent-supervisor"), "--state-dir", state, "--socket", str(tmp_path / "s")]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"})
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"agent-supervisor: {state}: the state directory cannot be made" in ended.stderr


async def test_a_state_directory_that_was_there_keeps_its_mode(daemon: DaemonProcess) -> None:
    daemon.state.mkdir()
    daemon.state.chmod(0o700)
    await daemon.start()
    assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o700


async def test_a_new_state_directory_is_for_its_owner_and_group(daemon: DaemonProcess) -> None:
    daemon.brings_probe = False
    await daemon.start()
    assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o750


async def test_it_may_open_as_many_files_as_it_is_allowed_to(daemon: DaemonProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        daemon.spawn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with daemon.client():
        assert daemon.process is not None
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
