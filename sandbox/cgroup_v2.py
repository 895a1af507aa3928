"""cgroup v2: one directory a group (Documentation/admin-guide/cgroup-v2.rst), in a subtree that was delegated to us.

A cgroup with controllers enabled for its children may hold no processes, so the daemon first moves itself into a child named
`supervisor` (systemd's CGROUP_DELEGATION.md). Nothing outside of a delegated subtree is changed: it has another owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from pathlib import Path

from sandbox.cgroup_base import (
    CPU_PERIOD_US,
    FIELDS,
    Group,
    GroupEvents,
    Hierarchy,
    Limits,
    check_name,
    claim,
    disks,
    failed,
    pids_in,
    read_int,
    read_stat,
    stalled_s,
    write,
)
from sandbox.errors import SandboxError

REQUIRED = frozenset({"memory", "pids"})
WANTED = ("memory", "pids", "cpu", "io")
IO_WEIGHTS = ("io.weight", "io.bfq.weight")
"""Of the controllers iocost and bfq, whichever the kernel has."""
UNIT_SUFFIXES = frozenset({".service", ".scope", ".slice", ".socket", ".mount", ".swap"})
"""A cgroup so named is a unit of systemd: its parent is not ours, whatever its mark."""

MANAGER_TIMEOUT_S = 10.0
"""For the user's service manager to answer; it is asked twice at a start."""

SCOPE_HINT = "Start it as the systemd service, or under `systemd-run --user --scope -p Delegate=yes`."


class GroupV2(Group):
    """One directory, with a descriptor for CLONE_INTO_CGROUP."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory
        self._descriptor = -1

    def attach(self, pid: int) -> None:
        try:
            write(self._directory / "cgroup.procs", pid)
        except OSError as error:
            raise failed(f"cannot move process {pid} into {self._directory}", error) from error

    def join(self) -> None:
        self.attach(0)

    def directory_fd(self) -> int:
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise failed(f"cannot open {self._directory}", error) from error
        return self._descriptor

    def kill(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            write(self._directory / "cgroup.kill", 1)

    def empty(self) -> bool:
        return not read_stat(self._directory / "cgroup.events").get("populated", 0)

    def _read_events(self) -> GroupEvents:
        return GroupEvents(
            oom_kills=read_stat(self._directory / "memory.events").get("oom_kill", 0),
            pids_limit_hits=read_stat(self._directory / "pids.events").get("max", 0),
            memory_peak_bytes=read_int(self._directory / "memory.peak"),
            cpu_s=read_stat(self._directory / "cpu.stat").get("usage_usec", 0) / 1e6,
            stalled_s=stalled_s(self._directory),
        )

    def _remove(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._wait_empty(deadline)
        while True:
            try:
                self._directory.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as error:
                # Also EBUSY for a moment after the last exit.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise failed(f"cannot remove {self._directory}", error, "kill() it first.") from error
                time.sleep(0.001)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _wait_empty(self, deadline: float) -> None:
        """Wait until `populated` falls to 0 (the kernel wakes a POLLPRI on cgroup.events), or for the deadline."""
        try:
            events = os.open(self._directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            while b"populated 1" in os.pread(events, 4096, 0) and (left := deadline - time.monotonic()) > 0:
                poller.poll(left * 1000)
        finally:
            os.close(events)


class HierarchyV2(Hierarchy):
    """Our directory `name` in the delegated cgroup `base`."""

    backend = "v2"

    def __init__(self, base: Path, name: str) -> None:
        """Move this process out of the way, enable the controllers and lock our directory.

        Raises SandboxError, with nothing moved, when the subtree lacks controllers or holds processes of others.
        """
        self._directory = base / name
        self._lock = -1
        try:
            available = controllers(base)
            if not available >= REQUIRED:
                lacking = ", ".join(sorted(REQUIRED - available))
                raise SandboxError(
                    f"the cgroup {base} has no {lacking} controller.", step="cgroup", errno=errno.ENOTSUP, hint=SCOPE_HINT
                )
            if not (base / "cgroup.kill").exists() and (base / "cgroup.type").exists():
                raise SandboxError("cgroup v2 needs Linux 5.14 or newer, for cgroup.kill.", step="cgroup", errno=errno.ENOTSUP)
            make_room(base, every=marked(base))
            self._controllers = enable(base, available)
            self._lock = claim(self._directory)
            enable(self._directory, self._controllers)
        except OSError as error:
            self.close()
            if error.errno == errno.EWOULDBLOCK:
                raise SandboxError(
                    f"the cgroup name {name!r} is used by another process.",
                    step="cgroup",
                    errno=error.errno,
                    hint="Give this one a name of its own.",
                ) from error
            raise failed(f"cannot set up the cgroup {error.filename or self._directory}", error, SCOPE_HINT) from error

    def layers(self) -> dict[str, str]:
        seen = {}
        for resource in FIELDS:
            controller = resource.split(" ")[0]
            seen[resource] = "v2" if controller in self._controllers else f"the {controller} controller is not delegated"
        if seen["io weight"] == "v2" and not any((self._directory / name).exists() for name in IO_WEIGHTS):
            seen["io weight"] = "the kernel has no weights for disks (CONFIG_BLK_CGROUP_IOCOST or CONFIG_BFQ_GROUP_IOSCHED)"
        return seen

    def create(self, name: str) -> Group:
        directory = self._directory / check_name(name)
        try:
            directory.mkdir(mode=0o755)
        except OSError as error:
            raise failed(f"cannot make the cgroup {directory}", error) from error
        return GroupV2(name, directory)

    def limit(self, group: Group, limits: Limits) -> None:
        directory = self._directory / group.name
        try:
            self._limit(directory, limits)
        except OSError as error:
            raise failed(f"cannot limit the cgroup {directory} ({error.filename})", error) from error

    def leftovers(self) -> list[Group]:
        return [GroupV2(entry.name, entry) for entry in sorted(self._directory.iterdir()) if entry.is_dir()]

    def neighbours(self) -> list[str]:
        return sorted(entry.name for entry in self._directory.parent.iterdir() if entry.is_dir())

    def neighbour(self, name: str) -> Hierarchy:
        return HierarchyV2(self._directory.parent, name)

    def close(self) -> None:
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._directory.rmdir()
            os.close(self._lock)
            self._lock = -1

    @staticmethod
    def _limit(directory: Path, limits: Limits) -> None:
        if limits.memory_bytes:
            write(directory / "memory.max", limits.memory_bytes)
            write(directory / "memory.oom.group", 1)
            if (directory / "memory.swap.max").exists():
                write(directory / "memory.swap.max", limits.swap_bytes)
        if limits.pids:
            write(directory / "pids.max", limits.pids)
        if limits.cpu_percent:
            write(directory / "cpu.max", f"{limits.cpu_quota_us()} {CPU_PERIOD_US}")
        if limits.cpu_weight:
            write(directory / "cpu.weight", limits.cpu_weight)
        if limits.limits_io:
            _limit_io(directory, limits)


def _limit_io(directory: Path, limits: Limits) -> None:
    if limits.io_weight:
        file = next(directory / name for name in IO_WEIGHTS if (directory / name).exists())
        # That of bfq ends at 1,000.
        write(file, f"default {min(limits.io_weight, 1_000) if 'bfq' in file.name else limits.io_weight}")
    asked = {"rbps": limits.io_read_bytes_per_s, "wbps": limits.io_write_bytes_per_s}
    words = " ".join(f"{name}={value}" for name, value in asked.items() if value)
    for disk in disks() if words else ():
        write(directory / "io.max", f"{disk} {words}")


def delegated_base(own: Path) -> Path | None:
    """The cgroup that was delegated to us: our own, or its parent where we stand in a child of it (systemd's DelegateSubgroup=).

    None when the subtree belongs to another manager. Where systemd does not run, our own cgroup has no other owner.
    """
    if delegated(own):
        return own
    if own.suffix not in UNIT_SUFFIXES and delegated(own.parent):
        return own.parent
    if Path("/run/systemd/system").exists():
        return None
    base = own.parent if own.name == "supervisor" else own
    return base if os.access(base / "cgroup.procs", os.W_OK) else None


def delegated(directory: Path) -> bool:
    """Whether systemd says that a cgroup is the unit's own. A user's manager sets no mark (seen in systemd 252): it is asked."""
    return marked(directory) or _user_manager_delegates(directory)


def _user_manager_delegates(directory: Path) -> bool:
    uid = os.geteuid()
    if directory.suffix not in (".service", ".scope") or f"user@{uid}.service" not in directory.parent.parts:
        return False
    import subprocess  # seldom needed, and carried by every fork of this process

    argv = ["systemctl", "--user", "show", "--property=Delegate", "--value", "--", directory.name]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    try:
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=MANAGER_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == b"yes"


def marked(directory: Path) -> bool:
    """Whether systemd has marked a cgroup as delegated: everything in it then belongs to the unit that we are."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"1":
                return True
    return False


def controllers(directory: Path) -> set[str]:
    """The controllers that the children of a cgroup may be given. Raises OSError."""
    return set((directory / "cgroup.controllers").read_text().split())


def enable(directory: Path, wanted: set[str]) -> set[str]:
    """Turn on for the children what is wanted and there; returns what is on. Raises OSError."""
    for name in WANTED:
        if name in wanted:
            write(directory / "cgroup.subtree_control", f"+{name}")
    return set((directory / "cgroup.subtree_control").read_text().split()) & set(WANTED)


def make_room(base: Path, *, every: bool) -> None:
    """Move the processes of `base` to `base`/supervisor: all of them if `every`, otherwise only our ancestors and descendants.

    Raises SandboxError, with nothing moved, when that would leave others in it; OSError when it is not ours to change.
    """
    if not (base / "cgroup.type").exists():
        return  # the root of the hierarchy may hold processes
    inside = pids_in(base)
    strangers = [] if every else [pid for pid in inside if not _is_kin(pid)]
    if strangers:
        raise SandboxError(
            f"the cgroup {base} holds other processes (pid {', '.join(map(str, strangers[:3]))}), which are not ours to move.",
            step="cgroup",
            errno=errno.EBUSY,
            hint=SCOPE_HINT,
        )
    if inside:
        (base / "supervisor").mkdir(exist_ok=True)
    for pid in inside:
        with contextlib.suppress(ProcessLookupError):
            write(base / "supervisor" / "cgroup.procs", pid)


def _is_kin(pid: int) -> bool:
    """Whether a process is an ancestor or descendant of this one, or has ended."""
    return pid in _line(os.getpid()) or os.getpid() in _line(pid) or not Path(f"/proc/{pid}").exists()


def _line(pid: int) -> list[int]:
    """A process and its ancestors, nearest first."""
    line = []
    while pid > 0:
        line.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            break
    return line
