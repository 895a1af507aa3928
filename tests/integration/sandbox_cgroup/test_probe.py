"""The probe on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import probe as module
from sandbox.cgroup import Cgroups
from sandbox.probe import probe, report

PACKAGE = Path(module.__file__).parent
LOAD = f"""
import json, os, signal, sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
from sandbox import linux, probe_child as child
"""
"""In an interpreter of its own: it forks."""


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_every_mechanism_is_tried_and_the_hosts_mounts_stay_as_they_are() -> None:
    before = mounts()
    layers = probe()
    assert mounts() == before
    names = [layer.name for layer in layers]
    for name in (
        "mount namespace",
        "pivot_root",
        "seccomp",
        "landlock files",
        "landlock scopes",
        "cgroup memory",
        "cgroup pids",
        "cgroup cpu",
        "yama",
    ):
        assert name in names
    for layer in layers:
        assert layer.how
        assert layer.enforced or layer.remedy or not layer.needed
    assert report(layers)


def test_the_limits_are_tried_in_the_cgroups_of_the_caller(cgroups: Cgroups) -> None:
    held = {layer.name: layer.enforced for layer in probe(cgroups) if layer.name.startswith("cgroup ")}
    assert held == {"cgroup namespace": True, "cgroup memory": True, "cgroup pids": True, "cgroup cpu": True}
    assert cgroups.sweep() == []


def test_mounting_is_refused_in_the_mount_namespace_of_the_parent() -> None:
    before = mounts()
    # It is loaded in a namespace of its own, so that this machine keeps its mounts even if the guard is broken.
    leave = "import ctypes; ctypes.CDLL(None).unshare(0x20000)"
    code = f"{leave}{LOAD}from sandbox.mounts import PrivateMounts; PrivateMounts()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "refused to mount" in done.stderr
    assert mounts() == before


def test_a_trial_that_hangs_or_dies_is_an_answer_not_a_crash() -> None:
    code = f"""{LOAD}
print(json.dumps(child.attempt(lambda scratch: os.kill(os.getpid(), signal.SIGKILL))))
print(json.dumps(child.attempt(lambda scratch: 1 / 0)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    killed, raised = done.stdout.splitlines()
    assert killed == '{"ok": false, "how": "the trial ended with status -9"}'
    assert '"ok": false' in raised


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_is_told_what_only_root_can() -> None:
    # Not by `user=`: the interpreter may stand in a directory that only root can read.
    code = f"""{LOAD}
import ctypes, platform
platform.machine()
os.setgroups([])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
linux.prctl(linux.PR_SET_DUMPABLE, 1)  # or /proc/self stays root's
print(json.dumps([child.attempt(child.TRIALS[name]) for name in ("id-mapped mounts", "pivot_root", "user namespace")]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    idmapped, pivot, users = json.loads(done.stdout)
    assert idmapped == {"ok": False, "how": "mount_setattr: needs root"}
    assert pivot == {"ok": True, "how": "into an empty root"}
    assert users == {"ok": True, "how": "unshare, uid_map and a mount inside, as uid 12345"}
