"""What a program sees in a sandbox that root made, and in one that an ordinary user made."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from sandbox.plan import ETC
from sandbox.spec import HOME, SandboxSpec
from tests.support.sandbox import Maker

DEFAULT_UID = SandboxSpec(argv=("true",)).uid
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", *(("time",) if KERNEL >= (6, 3) else ()))


def test_the_root_has_nothing_of_the_host_but_its_system(seen: dict[str, Any]) -> None:
    expected = {"bin", "dev", "etc", "home", "lib", "proc", "root", "run", "sbin", "tmp", "usr", "var", "workspace"}
    assert set(seen["root"]) - {"lib32", "lib64", "libx32"} == expected
    assert seen["home"] == []


def test_etc_has_no_accounts_of_the_host(seen: dict[str, Any]) -> None:
    written = {"passwd", "group", "hosts", "nsswitch.conf", "resolv.conf", "mtab"}
    assert written <= set(seen["etc"]) <= written | {name.split("/")[0] for name in ETC}
    assert [line.split(":")[0] for line in seen["passwd"].splitlines()] == ["root", "worker", "nobody"]


def test_dev_is_minimal(seen: dict[str, Any]) -> None:
    devices = {"null", "zero", "full", "random", "urandom", "tty"}
    assert set(seen["dev"]) <= devices | {"fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm"}
    assert {"null", "urandom"} <= set(seen["dev"])


def test_only_its_own_processes(seen: dict[str, Any]) -> None:
    assert seen["pids"] == [1, seen["pid"]]


def test_it_is_never_root(seen: dict[str, Any], by: Maker) -> None:
    uid = by.uid or DEFAULT_UID
    assert seen["uids"] == [uid] * 3
    assert seen["gids"] == [uid] * 3
    assert seen["groups"] == []
    assert f"worker:x:{uid}:{uid}:" in seen["passwd"]


def test_no_privilege_is_left(seen: dict[str, Any]) -> None:
    status = seen["status"]
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_every_namespace_is_its_own(seen: dict[str, Any], by: Maker) -> None:
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in seen["namespaces"]}
    same = {name for name in ours if seen["namespaces"][name] == ours[name]}
    # Root's sandboxes run under another user id instead.
    assert same == ({"user"} if by.name == "root" else set())


def test_two_sandboxes_share_no_namespace(seen: dict[str, Any], by: Maker) -> None:
    code = "import json, os; print(json.dumps({name: os.readlink(f'/proc/self/ns/{name}') for name in os.sys.argv[1:]}))"
    with by.start("run", "--", "python3", "-c", f"{code}; input()", *NAMESPACES, stdin=-1) as first:
        assert first.stdout is not None
        one = json.loads(first.stdout.readline())
        two = by.python(code, *NAMESPACES)
        first.communicate("\n")
    assert not {name for name in NAMESPACES if one[name] == two[name]}


def test_no_descriptor_leaks_in(seen: dict[str, Any]) -> None:
    assert seen["descriptors"] == [0, 1, 2]


def test_the_environment_is_exactly_what_was_given(seen: dict[str, Any]) -> None:
    usual = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME}
    assert seen["environment"] == usual | {"GIVEN": "a=b", "LANG": "C.UTF-8", "TERM": "dumb"}


def test_settings_of_the_process(seen: dict[str, Any]) -> None:
    assert seen["umask"] == 0o022
    assert seen["cwd"] == HOME
    assert seen["hostname"] == "sandbox"
    assert seen["limits"]["CORE"] == [1, 1]  # less than any, and no core_pattern is run for it (core(5))
    assert seen["limits"]["NOFILE"] == [1024, 1024]


def test_every_mount_is_one_that_is_meant(seen: dict[str, Any]) -> None:
    meant = {"/", "/usr", "/proc", "/dev/pts", "/dev/shm", "/tmp", HOME, "/workspace"}
    system = {f"/etc/{name}" for name in ETC} | {f"/{name}" for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin")}
    others = {place for place in seen["mounts"] if place not in meant and not place.startswith("/dev/")}
    assert {
        place for place in others if not any(place == known or place.startswith(f"{known}/") for known in (*system, "/usr"))
    } == set()


def test_init_hides_what_the_fork_server_had_in_memory(by: Maker) -> None:
    """PID 1 is a fork of the server: its memory holds what was asked for other sandboxes."""
    code = """
import json
def try_to_read(path):
    try:
        open(path, "rb").read(1)
        return "read"
    except OSError as error:
        return error.strerror
print(json.dumps([try_to_read(f"/proc/1/{name}") for name in ("mem", "maps", "environ")]))
"""
    assert by.python(code) == ["Permission denied"] * 3


def test_only_loopback_and_nothing_of_the_hosts(seen: dict[str, Any], by: Maker) -> None:
    assert seen["interfaces"] == ["lo"]
    code = """
import json, socket, sys
def connect(family, address):
    try:
        socket.socket(family).connect(address)
        return "connected"
    except OSError as error:
        return error.strerror
server = socket.create_server(("127.0.0.1", 0))
print(json.dumps([
    connect(socket.AF_INET, ("127.0.0.1", server.getsockname()[1])),
    connect(socket.AF_INET, ("127.0.0.1", int(sys.argv[1]))),
    connect(socket.AF_UNIX, "\\0" + sys.argv[2]),
    connect(socket.AF_INET, ("192.0.2.1", 80)),
]))
"""
    abstract = f"test-sandbox-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as outside, socket.socket(socket.AF_UNIX) as named:
        named.bind(f"\0{abstract}")
        named.listen()
        answers = by.python(code, str(outside.getsockname()[1]), abstract)
    assert answers == ["connected", "Connection refused", "Connection refused", "Network is unreachable"]


def test_what_it_must_not_do_is_refused(by: Maker) -> None:
    code = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def unshare_users():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
outcome = {}
for name, attempt in {
    "setuid": lambda: os.setuid(0),
    "chroot": lambda: os.chroot("/tmp"),
    "unshare": unshare_users,
    "sethostname": lambda: socket.sethostname("mine"),
    "mknod": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)),
    "setuid file": lambda: os.close(os.open("/tmp/setuid", os.O_CREAT | os.O_WRONLY, 0o4755)),
    "core_pattern": lambda: open("/proc/sys/kernel/core_pattern", "w"),
    "kill init": lambda: os.kill(1, 9),
}.items():
    try:
        attempt()
        outcome[name] = "done"
    except OSError as error:
        outcome[name] = error.strerror
print(json.dumps(outcome))
"""
    outcome = by.python(code)
    # PID 1 cannot be killed from inside: the kernel takes the signal and drops it, and we are here to tell.
    assert outcome.pop("kill init") == "done"
    assert outcome.pop("setuid") in ("Operation not permitted", "Invalid argument")
    assert outcome.pop("core_pattern") in ("Permission denied", "Read-only file system")
    assert set(outcome.values()) == {"Operation not permitted"}
