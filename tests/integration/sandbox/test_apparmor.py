"""The launcher that has an AppArmor profile, as far as a kernel without AppArmor can show it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from sandbox import apparmor, spawner
from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to root")


@needs_root
async def test_the_launcher_is_a_fork_server_of_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "agent-sandbox"
    os.umask(0o077)
    try:
        apparmor._write_launcher(home, os.path.realpath("/usr/bin/python3"))
    finally:
        os.umask(0o022)
    for path in (home, *home.rglob("*")):
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o022) == (0, 0, 0), path
        assert stat.S_IMODE(status.st_mode) & 0o044 == 0o044, path
    assert apparmor.launcher(home) == ""
    with monkeypatch.context() as ordinary:
        ordinary.setattr(os, "geteuid", lambda: 1000)
        assert apparmor.launcher(home) == str(home / "spawner")
    monkeypatch.setattr(spawner, "_server_argv", lambda: [str(home / "spawner")])
    started = Spawner.start(cgroup_name=f"test-launcher-{os.getpid()}")
    try:
        spec = SandboxSpec(argv=("sh", "-c", "exit 7"), env={"PATH": "/usr/bin:/bin"}, optional_layers=("cgroup",))
        exit = await (await started.spawn(spec, {})).wait()
    finally:
        await started.aclose()
    assert exit.code == 7


@needs_root
def test_one_of_another_version_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apparmor._write_launcher(tmp_path / "home", "/usr/bin/python3")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "home" / "digest").write_text("of another version")
    assert apparmor.launcher(tmp_path / "home") == ""


@needs_root
def test_the_trials_of_a_doctor_are_made_by_it_too(tmp_path: Path) -> None:
    apparmor._write_launcher(tmp_path, os.path.realpath("/usr/bin/python3"))
    tried = subprocess.run([tmp_path / "spawner", "trials"], capture_output=True, check=True)
    assert json.loads(tried.stdout)["pid namespace"]["ok"]


def test_the_profile_is_for_the_launcher_alone() -> None:
    text = apparmor.profile(Path("/opt/x"))
    assert "profile agent-sandbox-spawner /opt/x/spawner flags=(unconfined) {" in text
    assert [line.strip() for line in text.splitlines() if line.startswith("  ")] == ["userns,"]


def test_an_interpreter_that_a_user_could_exchange_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.touch()
    python.chmod(0o777)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(SandboxError, match="is not root's alone to change"):
        apparmor._trusted_interpreter()
