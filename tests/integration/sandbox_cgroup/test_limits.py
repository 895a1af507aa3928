"""Limits, kills and leftovers on the cgroups of this machine."""

from __future__ import annotations

import importlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.cgroup import FIELDS, Cgroups, Group
from sandbox.errors import SandboxError
from tests.support.cgroups import Start

MIB = 1 << 20


def test_a_process_over_its_memory_is_killed_and_counted(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("memory", memory_bytes=48 * MIB)
    process = start(group, f"b'x' * {200 * MIB}")
    if group.oom_descriptor() >= 0:
        assert select.select([group.oom_descriptor()], [], [], 30)[0]
        group.kill()
    assert process.wait(30) == -signal.SIGKILL
    group.remove()
    assert group.events().oom_kills >= 1
    assert 40 * MIB < group.events().memory_peak_bytes <= 48 * MIB


def test_forks_over_the_limit_are_refused_and_counted(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("pids", pids=5)
    code = "try:\n  for n in range(20):\n    if os.fork() == 0: signal.pause()\nexcept BlockingIOError: print(n, flush=True)"
    process = start(group, code)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "4"
    group.kill()
    group.remove()
    assert group.events().pids_limit_hits >= 1


def test_a_fork_bomb_is_killed_whole(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("bomb", pids=60)
    code = "print('on', flush=True)\nwhile True:\n  try: os.fork()\n  except BlockingIOError: pass"
    process = start(group, code)
    assert process.stdout is not None
    process.stdout.readline()
    while not group.events().pids_limit_hits:
        assert process.poll() is None
    group.kill()
    process.wait(30)
    group.remove()
    assert group.empty()


def test_cpu_time_is_counted_and_its_limit_is_taken(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("cpu", cpu_percent=50)
    assert start(group, "start = time.process_time()\nwhile time.process_time() < start + 0.2: pass").wait(30) == 0
    group.remove()
    assert group.events().cpu_s >= 0.2


def test_a_group_without_limits_lets_its_process_work(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("free")
    assert start(group, "sys.exit(7)").wait(30) == 7
    group.remove()


def test_removing_again_is_harmless_and_the_counters_stay(cgroups: Cgroups) -> None:
    group = cgroups.create("once")
    group.remove()
    group.remove()
    group.kill()
    assert group.empty()
    assert group.events().oom_kills == 0


def test_a_group_with_a_live_process_is_not_removed(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("busy")
    start(group, "signal.pause()")
    with pytest.raises(SandboxError, match="cannot remove"):
        group.remove(timeout_s=0.05)
    assert not group.empty()
    group.kill()
    group.remove()


def test_what_an_earlier_run_left_is_killed_and_removed(cgroups: Cgroups, start: Start) -> None:
    process = start(cgroups.create("left-1"), "signal.pause()")
    cgroups.create("left-2")
    cgroups.close()
    later = Cgroups.detect(f"test-{os.getpid()}")
    try:
        assert later.sweep() == ["left-1", "left-2"]
        assert process.wait(30) == -signal.SIGKILL
        assert later.sweep() == []
    finally:
        later.close()


def test_closed_cgroups_sweep_and_make_nothing(cgroups: Cgroups) -> None:
    """The name may be another daemon's by then."""
    cgroups.create("other")
    cgroups.close()
    assert cgroups.sweep() == []
    with pytest.raises(SandboxError, match="closed"):
        cgroups.create("more")
    later = Cgroups.detect(f"test-{os.getpid()}")
    assert later.sweep() == ["other"]
    later.close()


def test_a_second_daemon_may_not_take_the_same_name(cgroups: Cgroups) -> None:
    with pytest.raises(SandboxError, match="used by another process"):
        Cgroups.detect(f"test-{os.getpid()}")


def test_daemons_of_other_names_do_not_see_each_others_groups(cgroups: Cgroups, start: Start) -> None:
    process = start(cgroups.create("mine"), "signal.pause()")
    other = Cgroups.detect(f"test-{os.getpid()}-other")
    try:
        assert other.sweep() == []
    finally:
        other.close()
    assert process.poll() is None


def test_the_name_is_free_once_its_daemon_has_been_killed(cgroups: Cgroups) -> None:
    name = f"test-{os.getpid()}-killed"
    code = (
        f"from sandbox.cgroup import Cgroups; c = Cgroups.detect({name!r}); c.create('g'); print(c.backend, flush=True); input()"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().strip() == cgroups.backend
        daemon.kill()
    later = Cgroups.detect(name)
    try:
        assert later.sweep() == ["g"]
    finally:
        later.close()


def test_a_name_that_is_taken_is_refused_and_the_first_group_stays(cgroups: Cgroups, start: Start) -> None:
    group = cgroups.create("same")
    with pytest.raises(SandboxError, match="same"):
        cgroups.create("same")
    assert start(group, "sys.exit(3)").wait(30) == 3
    group.remove()


def test_a_process_that_is_gone_cannot_be_attached(cgroups: Cgroups) -> None:
    group = cgroups.create("late")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(SandboxError, match="cannot move process"):
        group.attach(ended.pid)
    group.remove()


def test_nothing_of_ours_stays_after_close() -> None:
    name = f"test-{os.getpid()}-gone"
    cgroups = Cgroups.detect(name)
    cgroups.close()
    cgroups.close()
    roots = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line}
    assert not [found for root in roots for found in Path(root).rglob(name)]


def test_where_there_are_no_cgroups_a_group_is_refused_with_the_reason() -> None:
    cgroups = Cgroups.detect("x", parent="/no-such-cgroup-of-ours/below")
    assert cgroups.backend == "none"
    assert cgroups.layers() == dict.fromkeys(FIELDS, cgroups.reason)
    with pytest.raises(SandboxError, match="no cgroups here"):
        cgroups.create("y", pids=3)
    cgroups.close()


def test_the_v1_hierarchy_is_found_with_and_without_cgroup_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox import cgroup_paths

    importlib.import_module("cgutils")  # of the extra cgroup1, which the set-up installs
    with_package = cgroup_paths.hierarchies()
    monkeypatch.setattr(cgroup_paths, "_cgutils_points", lambda: None)
    assert cgroup_paths.hierarchies() == with_package


@pytest.fixture
def v2_group() -> Group:
    """A group on the v2 mount of this machine, whose controllers may be elsewhere: for what needs none."""
    from sandbox.cgroup_paths import hierarchies
    from sandbox.cgroup_v2 import GroupV2

    own = hierarchies().v2
    if own is None or not os.access(own, os.W_OK) or not (own / "cgroup.procs").exists():
        pytest.skip("no writable cgroup v2 here")
    directory = own / f"test-{os.getpid()}-v2"
    directory.mkdir()
    return GroupV2("v2", directory)


def test_v2_kills_and_removes_a_tree(v2_group: Group, start: Start) -> None:
    process = start(v2_group, "os.fork(); print('on', flush=True); signal.pause()")
    assert process.stdout is not None
    process.stdout.readline()
    assert not v2_group.empty()
    assert os.fstat(v2_group.directory_fd()).st_mode
    v2_group.kill()
    v2_group.remove()
    assert v2_group.empty()
    assert process.wait(30) == -signal.SIGKILL
