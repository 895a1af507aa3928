"""What a sandbox is to be: the one thing that a caller says."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import NamedTuple

import msgspec

from sandbox.errors import SandboxError
from sandbox.notify_calls import GROUPS, Group
from sandbox.protected import PROTECTED, Missing
from sandbox.syscalls import DENIABLE, OPTIONAL

MIB = 1024 * 1024
HOME = "/home/worker"
"""Private and writable in every sandbox, as are /tmp, /dev/shm and WORKSPACE."""
WORKSPACE = "/workspace"
OPTIONAL_LAYERS = frozenset({"cgroup", "landlock", "namespaces"})
"""What a specification may name as optional; every other layer is demanded."""
MAX_UID = 2**31 - 1
"""Above, programs that take ids for signed numbers go wrong, and 2³² − 1 means "stay as you are" to setresuid(2): stay root."""
LIMITS = (
    "tmp_bytes",
    "open_files",
    "file_size_bytes",
    "disk_bytes",
    "disk_files",
    "memory_bytes",
    "swap_bytes",
    "pids",
    "cpu_percent",
    "io_read_bytes_per_s",
    "io_write_bytes_per_s",
)
WEIGHTS = ("cpu_weight", "io_weight")
MAX_WEIGHT = 10_000
MAX_WALL_S = 1e9
DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dri/*", "/dev/kfd")
"""The devices of the host that a sandbox may be given: those of GPUs (fnmatch(3))."""
ANY_ID = 2**32 - 1
MAX_LIMIT = 2**63 - 1
MAX_PIDS = 4 * MIB
"""PID_MAX_LIMIT of the kernel."""
MIN_TMP_BYTES = 4096
"""A tmpfs of size 0 would have no limit at all (tmpfs(5))."""
MAX_DESCRIPTOR = 65_535
DNS_PORT = 53
MAX_LISTENERS = 32
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")


class Bind(NamedTuple):
    """A directory or file of the host that is seen inside, with everything mounted below it.

    `target` is where; empty: at the same path. A writable bind is used with the rights of the source's owner: files made in it
    belong to that owner, and it must not be reached through a symbolic link. `owner` is the (uid, gid) that the source must have
    when it is bound; None: any. Give it where somebody else could put another directory in its place. `layers` makes a
    copy-on-write view (overlayfs) of a writable bind: the source stays as it is, and what is written goes into the empty
    directories `upper` and `work` of that directory of the host, which belong to the source's owner. Nothing inside sees them.
    `reviewed` says that somebody looks at what was changed in it before anything outside uses it: nothing in it is protected.
    """

    source: str
    target: str = ""
    writable: bool = False
    owner: tuple[int, int] | None = None
    layers: str = ""
    reviewed: bool = False

    @property
    def place(self) -> str:
        return self.target or self.source


class Listener(NamedTuple):
    """A socket that listens inside, the only network of which is loopback; 0.0.0.0 is all of 127.0.0.0/8."""

    port: int
    address: str = "127.0.0.1"
    udp: bool = False


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox. A limit of 0 is none, but for `tmp_bytes`; sizes are bytes; `cpu_percent` is of one CPU."""

    argv: tuple[str, ...]
    """A program without a slash is looked up in the PATH of `env`, inside."""
    env: dict[str, str] = {}
    """The whole environment: nothing else is passed on."""
    cwd: str = "/"
    hostname: str = "sandbox"
    binds: tuple[Bind, ...] = ()
    tmp_bytes: int = 256 * MIB
    """For everything private and writable together, which lies in memory and counts as such."""
    uid: int = 1_900_000_000
    """User and group inside, when root makes the sandbox; otherwise the caller's own are kept."""
    open_files: int = 1024
    file_size_bytes: int = 0
    disk_bytes: int = 0
    """By how much its writable binds may grow, all together, before it is killed; so many files more, `disk_files`."""
    disk_files: int = 0
    memory_bytes: int = 0
    swap_bytes: int = 0
    """Beside `memory_bytes`, where that is limited: 0 is none at all."""
    pids: int = 0
    cpu_percent: int = 0
    cpu_weight: int = 0
    """A share of what is contended for, from 1 to 10,000; 100 is the usual one; 0 leaves it at that. So is `io_weight`."""
    io_weight: int = 0
    io_read_bytes_per_s: int = 0
    """Of every disk."""
    io_write_bytes_per_s: int = 0
    wall_s: float = 0.0
    """Seconds until all of it is killed; 0: it may run for ever."""
    tmpfs: tuple[str, ...] = ()
    """More directories that are private, writable and in memory; of what the host has there, nothing is seen."""
    masked: tuple[str, ...] = ()
    """Paths inside, below a bind, that are empty and closed to everybody, whatever the host has there. What is not there is
    passed over."""
    protected: tuple[str, ...] = PROTECTED
    """What cannot be changed in a writable bind, relative to its root, unless it is bound writable itself or the bind is
    `reviewed`; `protected.py` tells what holds."""
    protect_missing: Missing = "all"
    """What of it is not there cannot be made either: the caller must be `protected.holding` the directories meanwhile."""
    devices: tuple[str, ...] = ()
    """Patterns of DEVICES; the devices of the host that match are there, usable by their mode and their group."""
    allow_syscalls: tuple[str, ...] = ()
    """Groups of `syscalls.OPTIONAL` that are granted."""
    deny_syscalls: tuple[str, ...] = ()
    """Groups of `syscalls.DENIABLE` or OPTIONAL that are not, whatever else is said."""
    loopback_listen: tuple[int, ...] = ()
    """TCP ports of 127.0.0.1 inside, whose listening sockets are handed to the caller."""
    loopback_any: tuple[int, ...] = ()
    """TCP ports of every address in 127.0.0.0/8 inside, likewise: the caller tells them apart by getsockname(2)."""
    dns: bool = False
    """The caller answers for names: sockets for UDP and TCP on 127.0.0.1:53 inside, likewise, which /etc/resolv.conf names."""
    init: bool = False
    """Run `argv` below a small PID 1 that reaps and passes signals on. Without, `argv` is PID 1 itself (pid_namespaces(7))."""
    terminal: bool = False
    """Descriptor 0 is a terminal made for the sandbox alone, which its program is to control. Needs `init`."""
    supervise: Group = "off"
    """What a supervisor is shown and tells: `refused` what the filter refuses and where sockets want to go, `files` paths too."""
    optional_layers: tuple[str, ...] = ()
    """`cgroup`: go on without those of the limits on memory, pids, cpu and io that this host cannot hold. `landlock`: without it.
    `namespaces`: where the host forbids them to this user, with Landlock and the filter alone (tier.py says what that lacks).
    """


def ids(spec: SandboxSpec) -> tuple[int, int]:
    """The user and group that the program has inside."""
    return (spec.uid, spec.uid) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def limits_disks(spec: SandboxSpec) -> bool:
    """Whether it is limited in what it adds to the host's disks, as far as it may write there at all."""
    return bool(spec.disk_bytes or spec.disk_files) and any(bind.writable for bind in spec.binds)


def listeners_of(spec: SandboxSpec) -> tuple[Listener, ...]:
    """The sockets that the caller is handed, in this order."""
    named = [Listener(port) for port in spec.loopback_listen]
    everywhere = [Listener(port, "0.0.0.0") for port in spec.loopback_any]
    return (*named, *everywhere, *((Listener(DNS_PORT, udp=True), Listener(DNS_PORT)) if spec.dns else ()))


def check(spec: SandboxSpec) -> None:
    """Raise SandboxError, naming the field, for a specification that cannot be meant."""
    _check_program(spec)
    if spec.terminal and not spec.init:
        raise _refused("terminal", "needs `init`.")
    _check_paths(spec)
    _check_numbers(spec)
    _check_grants(spec)
    if not _HOSTNAME.fullmatch(spec.hostname):
        raise _refused("hostname", f"{spec.hostname!r} is not up to 64 letters, digits, '-' and '.'.")
    if spec.supervise not in GROUPS:
        raise _refused("supervise", f"{spec.supervise!r} is none of {', '.join(GROUPS)}.")
    if unknown := set(spec.optional_layers) - OPTIONAL_LAYERS:
        known = ", ".join(sorted(OPTIONAL_LAYERS))
        raise _refused("optional_layers", f"{', '.join(sorted(unknown))} cannot be optional; {known} can.")


def _check_program(spec: SandboxSpec) -> None:
    if not spec.argv or not all(isinstance(word, str) and "\0" not in word for word in spec.argv) or not spec.argv[0]:
        raise _refused("argv", "must name a program; no word may hold a NUL.")
    for name, value in spec.env.items():
        if not name or "=" in name or "\0" in name + value:
            raise _refused("env", f"{name!r} is no name of a variable, or its value holds a NUL.")


def _check_paths(spec: SandboxSpec) -> None:
    given = [("cwd", spec.cwd), *(("binds", path) for bind in spec.binds for path in (bind.source, bind.place))]
    given += [("binds", bind.layers) for bind in spec.binds if bind.layers]
    given += [("tmpfs", path) for path in spec.tmpfs] + [("masked", path) for path in spec.masked]
    for field, path in given:
        # Of two slashes at the beginning, normpath keeps both.
        if not os.path.isabs(path) or "\0" in path or os.path.normpath(path) != path or path.startswith("//"):
            raise _refused(field, f"{path!r} is no absolute, normal path.")
    for field, path in given[1:]:
        if path == "/" and field != "binds":
            raise _refused(field, "the root itself cannot be meant.")
    for path in spec.protected:
        if os.path.isabs(path) or "\0" in path or os.path.normpath(path) != path or path.split("/")[0] in (".", ".."):
            raise _refused("protected", f"{path!r} is no path below a bind: write it without a / at its beginning or end.")
    if any(bind.layers and not bind.writable for bind in spec.binds):
        raise _refused("binds", "only a writable one can be a copy-on-write view.")
    if any(bind.place == "/" for bind in spec.binds):
        raise _refused("binds", "the root itself cannot be bound.")
    if any(not 0 <= id < ANY_ID for bind in spec.binds for id in bind.owner or ()):
        raise _refused("binds", f"an owner's ids must be from 0 to {ANY_ID - 1}.")


def _check_numbers(spec: SandboxSpec) -> None:
    if not 1 <= spec.uid <= MAX_UID:
        raise _refused("uid", f"must be from 1 to {MAX_UID}: a worker never runs as root.")
    for name in LIMITS:
        if not 0 <= getattr(spec, name) <= MAX_LIMIT:
            raise _refused(name, f"must be from 0, which is no limit, to {MAX_LIMIT}.")
    for name in WEIGHTS:
        if not 0 <= getattr(spec, name) <= MAX_WEIGHT:
            raise _refused(name, f"must be from 1 to {MAX_WEIGHT}, or 0.")
    if not 0 <= spec.wall_s <= MAX_WALL_S:
        raise _refused("wall_s", f"must be from 0, which is no limit, to {MAX_WALL_S:.0f}.")
    if spec.tmp_bytes < MIN_TMP_BYTES:
        raise _refused("tmp_bytes", f"must be at least {MIN_TMP_BYTES}.")
    if spec.pids > MAX_PIDS:
        raise _refused("pids", f"must be at most {MAX_PIDS}.")
    _check_ports(spec)


def _check_ports(spec: SandboxSpec) -> None:
    taken = {DNS_PORT} if spec.dns else set()
    for name in ("loopback_listen", "loopback_any"):
        ports = getattr(spec, name)
        if len(set(ports)) < len(ports) or not all(0 < port < 65536 for port in ports):
            raise _refused(name, "must be different ports from 1 to 65535.")
        if twice := taken.intersection(ports):
            raise _refused(name, f"{min(twice)} is listened on already.")
        taken.update(ports)
    if len(listeners_of(spec)) > MAX_LISTENERS:
        raise _refused("loopback_any", f"more than {MAX_LISTENERS} sockets would listen.")


def _check_grants(spec: SandboxSpec) -> None:
    for field, given, known in (
        ("allow_syscalls", spec.allow_syscalls, OPTIONAL.keys()),
        ("deny_syscalls", spec.deny_syscalls, DENIABLE | OPTIONAL.keys()),
    ):
        if unknown := sorted(set(given) - known):
            raise _refused(field, f"{', '.join(unknown)} is no group that can be: {', '.join(sorted(known))} can.")
    for pattern in spec.devices:
        if ".." in pattern.split("/") or not any(fnmatch.fnmatchcase(pattern, known) for known in DEVICES):
            raise _refused("devices", f"{pattern!r} is not given to a sandbox; {', '.join(DEVICES)} and parts of these can be.")


def _refused(field: str, message: str) -> SandboxError:
    return SandboxError(f"{field}: {message}", step="spec")
