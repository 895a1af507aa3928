"""What a sandbox's file system is made of, for a made-up host and for this one."""

from __future__ import annotations

import os

import pytest

from sandbox.errors import SandboxError
from sandbox.plan import BARE, ETC, PRIVATE, Host, Plan, Tree, common, has, make
from sandbox.spec import HOME, Bind, SandboxSpec

MERGED = Host(
    links={"/bin": "usr/bin", "/lib64": "usr/lib64", "/etc/localtime": "/usr/share/zoneinfo/UTC"},
    system=("/usr", "/etc/ssl", "/etc/ld.so.cache"),
    devices=("/dev/null", "/dev/urandom"),
)
SPLIT = Host(links={}, system=("/usr", "/bin", "/lib"), devices=("/dev/null",))


def plan_of(*binds: Bind, host: Host = MERGED, hostname: str = "box") -> Plan:
    return make(SandboxSpec(argv=("true",), binds=binds, hostname=hostname), host, 1000, 1001)


def test_the_skeleton_has_what_programs_expect() -> None:
    plan = plan_of()
    assert {"/proc", "/dev", "/dev/pts", "/run", "/etc", "/var", "/root"} <= set(plan.directories)
    assert plan.private == PRIVATE == ("/tmp", "/dev/shm", HOME, "/workspace")


def test_links_of_a_merged_system_are_made_again() -> None:
    plan = plan_of()
    assert plan.links.items() >= MERGED.links.items()
    assert plan.links["/var/tmp"] == "/tmp"
    assert plan.links["/dev/fd"] == "/proc/self/fd"
    assert plan.links["/dev/ptmx"] == "pts/ptmx"
    assert "/bin" not in {tree.place for tree in plan.trees}


def test_directories_of_a_split_system_are_bound() -> None:
    plan = plan_of(host=SPLIT)
    assert Tree("/bin", "/bin") in plan.trees
    assert "/bin" not in plan.links


def test_nothing_is_writable_but_what_was_asked_for() -> None:
    plan = plan_of(Bind("/srv/work", writable=True), Bind("/srv/data", "/data"))
    assert [tree for tree in plan.trees if tree.writable] == [Tree("/srv/work", "/srv/work", writable=True)]
    assert {tree.place for tree in plan.trees if tree.device} == set(MERGED.devices)


def test_a_copy_on_write_view_is_told_as_one_and_made_out_of_the_common_part() -> None:
    plan = plan_of(Bind("/srv/work", writable=True, layers="/layers", reviewed=True))
    assert Tree("/srv/work", "/srv/work", writable=True, layers="/layers", reviewed=True) in plan.trees
    assert "/srv/work" in str(plan)
    assert "the host's, copy-on-write" in str(plan)
    assert has(plan, common(MERGED))


def test_outer_binds_are_attached_before_those_below_them() -> None:
    plan = plan_of(Bind("/a", "/srv/x/y/z"), Bind("/b", "/srv"), Bind("/c", "/srv/x"), host=SPLIT)
    places = [tree.place for tree in plan.trees if tree.place.startswith("/srv")]
    assert places == ["/srv", "/srv/x", "/srv/x/y/z"]


def test_a_bind_may_take_the_place_of_a_private_directory() -> None:
    plan = plan_of(Bind("/srv/work", "/workspace", writable=True), Bind("/srv/tmp", "/tmp"))
    assert plan.private == ("/dev/shm", HOME)


def test_what_the_system_shows_anyway_is_not_bound_twice() -> None:
    assert plan_of(Bind("/usr/lib/python3"), Bind("/usr")).trees == plan_of().trees


@pytest.mark.parametrize("bind", [Bind("/usr/share/x", "/x"), Bind("/usr/local/w", writable=True), Bind("/usrlocal")])
def test_what_looks_like_the_system_but_is_not_is_bound(bind: Bind) -> None:
    assert Tree(bind.source, bind.place, bind.writable) in plan_of(bind).trees


def test_the_accounts_are_written_never_the_hosts() -> None:
    plan = plan_of()
    assert plan.files["/etc/passwd"].splitlines()[1] == f"worker:x:1000:1001:worker:{HOME}:/bin/sh"
    assert [line.split(":")[0] for line in plan.files["/etc/passwd"].splitlines()] == ["root", "worker", "nobody"]
    assert "worker:x:1001:" in plan.files["/etc/group"]
    assert "127.0.0.1 localhost box\n" in plan.files["/etc/hosts"]
    secrets = {"passwd", "shadow", "group", "gshadow", "sudoers", "ssh", "hosts", "resolv.conf", "machine-id", "krb5.keytab"}
    assert not secrets & set(ETC)
    assert not any("private" in name or "shadow" in name for name in ETC)


def test_names_are_asked_for_only_where_somebody_answers() -> None:
    silent = plan_of().files
    assert "hosts: files\n" in silent["/etc/nsswitch.conf"]
    assert "nameserver" not in silent["/etc/resolv.conf"]
    answered = make(SandboxSpec(argv=("true",), dns=True), MERGED, 1000, 1001).files
    assert "hosts: files dns\n" in answered["/etc/nsswitch.conf"]
    assert answered["/etc/resolv.conf"] == "nameserver 127.0.0.1\n"


def test_this_host_gives_nothing_of_any_home() -> None:
    plan = plan_of(host=Host.look())
    shown = [tree.source for tree in plan.trees]
    assert "/usr" in shown
    for hidden in (os.path.expanduser("~"), "/home", "/root", "/tmp", "/run", "/var", "/sys", "/etc", "/dev", "/proc", "/"):
        assert hidden not in shown
    assert all(source.startswith(("/usr", "/etc/", "/dev/", "/bin", "/lib", "/sbin")) for source in shown)


def test_this_hosts_links_lead_where_they_lead_here() -> None:
    for path, target in Host.look().links.items():
        assert os.readlink(path) == target


def test_people_are_shown_every_path_with_what_it_is() -> None:
    lines = dict(line.split("  ", 1) for line in str(plan_of(Bind("/srv/work", writable=True), Bind("/d", "/data"))).splitlines())
    told = {path.strip(): what.strip() for path, what in lines.items()}
    assert list(told) == sorted(told)
    assert told["/srv/work"] == "the host's, WRITABLE"
    assert told["/data"] == "the host's /d, read-only"
    assert told["/usr"] == "the host's, read-only"
    assert told["/bin"] == "-> usr/bin"
    assert told["/dev/null"] == "device"
    assert told["/etc/passwd"] == "written for the sandbox"
    assert told["/tmp"] == "private, writable, in memory"
    assert told["/proc"] == "this sandbox's processes"


@pytest.mark.parametrize("place", ["/bin/tool", "/lib64/x/y", "/var/run/x", "/dev/fd/3", "/etc/localtime/x"])
def test_a_bind_below_a_link_is_refused(place: str) -> None:
    """It would be made where the link leads while the root is built: on the host."""
    with pytest.raises(SandboxError, match="is a link to"):
        plan_of(Bind("/srv/x", place))


def test_a_bind_may_take_the_place_of_a_link() -> None:
    plan = plan_of(Bind("/srv/zone", "/etc/localtime"))
    assert "/etc/localtime" not in plan.links
    assert Tree("/srv/zone", "/etc/localtime") in plan.trees


@pytest.mark.parametrize("place", ["/home", "/dev", "/proc", "/dev/pts"])
def test_a_bind_around_what_is_the_sandboxes_own_is_refused(place: str) -> None:
    """Its own directories would be made, and given to the worker, in a directory of the host."""
    with pytest.raises(SandboxError, match="cannot be bound"):
        plan_of(Bind("/srv/x", place, writable=True))


def test_var_tmp_is_a_directory_when_something_lies_in_it() -> None:
    plan = plan_of(Bind("/var/tmp/project", writable=True))
    assert "/var/tmp" not in plan.links
    assert "/var/tmp" in plan.private
    assert plan_of().links["/var/tmp"] == "/tmp"


def test_the_owner_of_a_bind_is_kept() -> None:
    assert Tree("/srv/w", "/srv/w", writable=True, owner=(5, 6)) in plan_of(Bind("/srv/w", writable=True, owner=(5, 6))).trees


def test_what_all_have_in_common_is_a_part_of_nearly_every_plan() -> None:
    part = common(MERGED)
    for binds in ((), (Bind("/w", "/workspace", writable=True),), (Bind("/cache", "/home/worker/.cache"),), (Bind("/data"),)):
        spec = SandboxSpec(argv=("x",), binds=binds, hostname="other", uid=1234)
        assert has(make(spec, MERGED, 1234, 1234), part), binds


def test_a_bind_at_or_above_something_common_makes_it_no_part() -> None:
    part = common(MERGED)
    for place in ("/usr", "/etc", "/var/tmp/x"):
        planned = make(SandboxSpec(argv=("x",), binds=(Bind("/data", place),)), MERGED, 1234, 1234)
        assert not has(planned, part), place
        assert has(planned, BARE)


def test_the_directories_of_the_common_part_are_all_there_are_above_it_outer_ones_first() -> None:
    part = common(MERGED)
    made: set[str] = set()
    for path in part.directories:
        assert os.path.dirname(path) in {"/", *made}
        made.add(path)
    for path in (*part.files, *part.links, *(tree.place for tree in part.trees)):
        assert os.path.dirname(path) in {"/", *made}


def granted(**fields: object) -> Plan:
    return make(SandboxSpec(argv=("true",), **fields), MERGED, 1000, 1001)  # type: ignore[arg-type]


def shown(plan: Plan) -> list[list[str]]:
    return [line.split(maxsplit=1) for line in str(plan).splitlines()]


def test_more_private_directories_are_made_or_put_over_what_is_there() -> None:
    plan = granted(tmpfs=("/opt/x", "/tmp", "/srv/work/cache", "/usr/local/y"), binds=(Bind("/srv/work", writable=True),))
    assert plan.private == (*PRIVATE, "/opt/x")
    assert plan.covered == ("/srv/work/cache", "/usr/local/y")
    assert ["/srv/work/cache", "private, writable, in memory"] in shown(plan)


@pytest.mark.parametrize("path", ["/bin/x", "/proc", "/dev"])
def test_a_private_directory_that_has_no_place(path: str) -> None:
    with pytest.raises(SandboxError):
        granted(tmpfs=(path,))


def test_hidden_paths_are_told() -> None:
    plan = granted(masked=("/srv/secret",))
    assert plan.masked == ("/srv/secret",)
    assert ["/srv/secret", "hidden, if it is there"] in shown(plan)


def test_devices_are_those_of_the_host_that_match(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"/dev/dri/*": ["/dev/dri/renderD128", "/dev/dri/card0"], "/dev/dri/card0": ["/dev/dri/card0"]}
    monkeypatch.setattr("sandbox.plan.glob.glob", lambda pattern: there.get(pattern, []))
    plan = granted(devices=("/dev/dri/*", "/dev/dri/card0", "/dev/nvidia*"))
    assert [tree.place for tree in plan.trees if tree.device] == [*MERGED.devices, "/dev/dri/card0", "/dev/dri/renderD128"]
    assert not any("dri" in tree.place for tree in granted().trees)
