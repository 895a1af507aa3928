"""Where our cgroups are, from the texts of /proc."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox.cgroup_paths import Mount, locate, parse_cgroup, parse_mountinfo

HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_PATHS = "8:pids:/\n4:memory:/user/1\n1:cpu,cpuacct:/a\n9:name=systemd:/\n0::/init.scope\n"


def test_a_hybrid_host_has_a_directory_for_each_v1_controller_and_one_for_v2() -> None:
    found = locate(parse_mountinfo(HYBRID_MOUNTS), parse_cgroup(HYBRID_PATHS))
    assert found.v2 == Path("/sys/fs/cgroup/unified/init.scope")
    assert found.v1 == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct/a"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct/a"),
        "memory": Path("/sys/fs/cgroup/memory/user/1"),
        "pids": Path("/sys/fs/cgroup/pids"),
    }


def test_a_unified_host_has_v2_alone() -> None:
    mounts = parse_mountinfo("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")
    found = locate(mounts, parse_cgroup("0::/system.slice/agent-supervisor.service\n"))
    assert found.v2 == Path("/sys/fs/cgroup/system.slice/agent-supervisor.service")
    assert found.v1 == {}


def test_the_part_of_the_hierarchy_that_a_container_does_not_see_is_left_out() -> None:
    mounts = parse_mountinfo("30 23 0:26 /docker/ab /sys/fs/cgroup rw - cgroup cgroup rw,memory\n")
    assert locate(mounts, {"memory": "/docker/ab/x"}).v1 == {"memory": Path("/sys/fs/cgroup/x")}
    assert locate(mounts, {"memory": "/elsewhere"}).v1 == {}


def test_a_path_outside_of_the_cgroup_namespace_is_not_followed() -> None:
    mounts = [Mount(Path("/sys/fs/cgroup"), "/", 2)]
    assert locate(mounts, {"": "/../other"}).v2 is None


def test_of_two_mounts_of_a_controller_the_given_one_is_taken() -> None:
    first = Mount(Path("/first"), "/", 1, frozenset({"memory"}))
    second = Mount(Path("/second"), "/", 1, frozenset({"memory"}))
    assert locate([first, second], {"memory": "/"}).v1 == {"memory": Path("/first")}
    assert locate([first, second], {"memory": "/"}, {"memory": Path("/second")}).v1 == {"memory": Path("/second")}


def test_escaped_spaces_in_a_mount_point_are_read() -> None:
    [mount] = parse_mountinfo("30 23 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n")
    assert mount.point == Path("/mnt/my groups")


def test_a_cgroup_path_may_hold_colons() -> None:
    assert parse_cgroup("0::/a:b/c\n") == {"": "/a:b/c"}


@given(st.text(max_size=300))
def test_no_text_breaks_the_parsers(text: str) -> None:
    locate(parse_mountinfo(text), parse_cgroup(text))
