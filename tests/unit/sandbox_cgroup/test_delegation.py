"""Which cgroup is ours to change. The directories are ordinary ones: only the extended attribute and the names count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import cgroup_v2
from sandbox.cgroup_base import Limits, check_name
from sandbox.cgroup_v2 import delegated, delegated_base, make_room
from sandbox.errors import SandboxError


def a_cgroup(directory: Path, *, marked: bool = False, procs: str = "") -> Path:
    directory.mkdir()
    (directory / "cgroup.type").write_text("domain\n")
    (directory / "cgroup.procs").write_text(procs)
    if marked:
        try:
            os.setxattr(directory, "user.delegate", b"1")
        except OSError:
            pytest.skip("the file system of the temporary directory has no user attributes")
    return directory


def test_a_marked_unit_is_ours(tmp_path: Path) -> None:
    unit = a_cgroup(tmp_path / "agent-supervisor.service", marked=True)
    assert delegated_base(unit) == unit


def test_a_child_of_a_marked_unit_leads_to_the_unit(tmp_path: Path) -> None:
    unit = a_cgroup(tmp_path / "agent-supervisor.service", marked=True)
    assert delegated_base(a_cgroup(unit / "supervisor")) == unit


def test_a_unit_below_a_marked_manager_is_not_the_managers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = a_cgroup(tmp_path / "user@1000.service", marked=True)
    scope = a_cgroup(manager / "run-1.scope")
    assert delegated_base(scope) != manager


@pytest.mark.parametrize(("answer", "ours"), [("yes", True), ("no", False)])
def test_the_manager_of_a_user_is_asked(answer: str, ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\n[ "$6" = run-1.scope ] && echo {answer}\n')
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setattr(os, "defpath", str(programs))
    manager = a_cgroup(tmp_path / f"user@{os.geteuid()}.service")
    scope = a_cgroup(manager / "run-1.scope")
    assert delegated(scope) == ours


def test_only_units_of_the_users_own_manager_are_asked_for(tmp_path: Path) -> None:
    manager = a_cgroup(tmp_path / f"user@{os.geteuid() + 1}.service")
    assert not delegated(a_cgroup(manager / "run-1.scope"))


def test_processes_of_others_stop_the_move_before_anything_is_moved(tmp_path: Path) -> None:
    base = a_cgroup(tmp_path / "box", procs=f"{os.getpid()}\n{_a_stranger()}\n")
    with pytest.raises(SandboxError, match="not ours to move") as refused:
        make_room(base, every=False)
    assert refused.value.hint == cgroup_v2.SCOPE_HINT
    assert not (base / "supervisor").exists()


def _a_stranger() -> int:
    """A process that is neither our ancestor nor our descendant: a kernel thread."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) > 2 and not cgroup_v2._is_kin(int(entry.name)):
            return int(entry.name)
    pytest.skip("no process on this machine but our own line")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "memory.max", "-x", "a b", "supervisor", "x" * 129, "a\n"])
def test_a_name_that_could_leave_our_directory_is_refused(name: str) -> None:
    with pytest.raises(SandboxError, match="cannot name a cgroup"):
        check_name(name)


def test_the_smallest_cpu_quota_is_the_kernels() -> None:
    assert Limits(cpu_percent=150).cpu_quota_us() == 150_000
    assert Limits(cpu_percent=0).cpu_quota_us() == 1_000
