"""cgroup v1: one directory a controller for each group (Documentation/admin-guide/cgroup-v1).

v1 has no cgroup.kill. The freezer stands in for it: processes of a frozen group cannot exit, so the pids read from
it cannot be reused before they are signalled, and none of them can fork on. Nor has it memory.oom.group: the kernel's killing
of single processes is turned off, so that whoever needs more memory waits, and the caller is told to kill the whole group.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from sandbox.cgroup_base import (
    CPU_PERIOD_US,
    DEFAULT_WEIGHT,
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
    write,
)
from sandbox.errors import SandboxError

REQUIRED = ("freezer", "memory", "pids")
BLOCKS = "blkio"
IO_WEIGHTS = ("blkio.weight", "blkio.bfq.weight")
_KILL_ROUNDS = 50
_FREEZE_TIMEOUT_S = 0.5
_POLL_S = 0.001


class GroupV1(Group):
    """A directory under each controller; mounts that carry several controllers are one directory."""

    def __init__(self, name: str, directories: dict[str, Path]) -> None:
        super().__init__(name)
        self.directories = directories
        self._freezer = directories["freezer"]
        self._oom = -1
        self._out_of_memory = False

    def watch_memory(self) -> None:
        """Let the group wait when its memory is used up, and be told of it. Raises OSError."""
        control = self.directories["memory"] / "memory.oom_control"
        self._oom = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with open(control, "rb") as events:
            write(control.with_name("cgroup.event_control"), f"{self._oom} {events.fileno()}")
        write(control, 1)

    def enter(self, controller: str, directory: Path) -> None:
        """Have one controller more, which all processes of the group move into. Raises OSError."""
        directory.mkdir(mode=0o755)
        self.directories[controller] = directory
        for pid in pids_in(self._freezer):
            write(directory / "cgroup.procs", pid)

    def oom_descriptor(self) -> int:
        return self._oom

    def attach(self, pid: int) -> None:
        # The freezer comes first: whatever is in any of them can then be killed through it.
        for directory in [self._freezer, *self._others()]:
            try:
                write(directory / "cgroup.procs", pid)
            except OSError as error:
                raise failed(f"cannot move process {pid} into {directory}", error) from error

    def join(self) -> None:
        # A thread that moves itself, and only that, takes no lock which all forks of the host share: that lock waits for an RCU
        # grace period, 4 ms and more (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
        for directory in [self._freezer, *self._others()]:
            try:
                write(directory / "tasks", 0)
            except OSError as error:
                raise failed(f"cannot enter {directory}", error) from error

    def directory_fd(self) -> int:
        raise SandboxError("cgroup v1 cannot start a process in a group.", step="cgroup", errno=errno.ENOTSUP, hint="Use join().")

    def kill(self) -> None:
        for _ in range(_KILL_ROUNDS):
            if self.empty():
                return
            try:
                self._freeze()
                for pid in pids_in(self._freezer):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    write(self._freezer / "freezer.state", "THAWED")
            time.sleep(_POLL_S)

    def empty(self) -> bool:
        return not pids_in(self._freezer)

    def _freeze(self) -> None:
        """Freeze, and wait until it holds: a process in an uninterruptible sleep delays it and is signalled all the same."""
        with contextlib.suppress(FileNotFoundError):
            write(self._freezer / "freezer.state", "FROZEN")
            deadline = time.monotonic() + _FREEZE_TIMEOUT_S
            while (self._freezer / "freezer.state").read_text().strip() != "FROZEN" and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def _read_events(self) -> GroupEvents:
        if self._oom >= 0:
            with contextlib.suppress(BlockingIOError):
                self._out_of_memory = os.eventfd_read(self._oom) > 0
        memory, pids, cpu = (self.directories.get(name, self._freezer) for name in ("memory", "pids", "cpuacct"))
        return GroupEvents(
            oom_kills=read_stat(memory / "memory.oom_control").get("oom_kill", 0) + self._out_of_memory,
            pids_limit_hits=read_stat(pids / "pids.events").get("max", 0),
            memory_peak_bytes=read_int(memory / "memory.max_usage_in_bytes"),
            cpu_s=read_int(cpu / "cpuacct.usage") / 1e9,
        )

    def _remove(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        # The freezer goes last: while it stands, a removal that failed half way can be taken up again.
        for directory in [*self._others(), self._freezer]:
            while True:
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    # v1 has no event for the last exit, hence the polling.
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise failed(f"cannot remove {directory}", error, "kill() it first.") from error
                    time.sleep(_POLL_S)
        if self._oom >= 0:
            os.close(self._oom)
            self._oom = -1

    def _others(self) -> list[Path]:
        return sorted(set(self.directories.values()) - {self._freezer})


class HierarchyV1(Hierarchy):
    """Our directory `name` under this process's own cgroup of each controller."""

    backend = "v1"

    def __init__(self, own: dict[str, Path], name: str) -> None:
        """Make the directories and lock them. Raises SandboxError when a controller is missing or not writable."""
        missing = [controller for controller in REQUIRED if controller not in own]
        if missing:
            raise SandboxError(
                f"cgroup v1 has no {', '.join(missing)} controller mounted here.", step="cgroup", errno=errno.ENOTSUP
            )
        self._directories = {controller: directory / name for controller, directory in own.items()}
        self._lock = -1
        try:
            self._lock = claim(self._directories["freezer"])
            for directory in self._directories.values():
                directory.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            self.close()
            if error.errno == errno.EWOULDBLOCK:
                raise SandboxError(
                    f"the cgroup name {name!r} is used by another process.",
                    step="cgroup",
                    errno=error.errno,
                    hint="Give this one a name of its own.",
                ) from error
            raise failed(f"cannot make the cgroup {error.filename}", error) from error

    def layers(self) -> dict[str, str]:
        def has(controller: str, *files: str) -> bool:
            return controller in self._directories and any((self._directories[controller] / file).exists() for file in files)

        return {
            "memory": "v1",
            "pids": "v1",
            "cpu": "v1" if has("cpu", "cpu.cfs_quota_us") else "no CPU bandwidth control: the kernel lacks CONFIG_CFS_BANDWIDTH",
            "cpu weight": "v1" if has("cpu", "cpu.shares") else "cgroup v1 has no cpu controller mounted here",
            "io": "v1" if has("blkio", "blkio.throttle.read_bps_device") else "the kernel lacks CONFIG_BLK_DEV_THROTTLING",
            "io weight": "v1" if has("blkio", *IO_WEIGHTS) else "no disk here has a scheduler with weights (bfq)",
        }

    def create(self, name: str) -> Group:
        check_name(name)
        directories = self._directories_of(name)
        made: list[Path] = []
        try:
            for directory in dict.fromkeys(directories.values()):
                directory.mkdir(mode=0o755)
                made.append(directory)
        except OSError as error:
            for directory in made:
                with contextlib.suppress(OSError):
                    directory.rmdir()
            raise failed(f"cannot make the cgroup {name!r} ({error.filename})", error) from error
        return GroupV1(name, directories)

    def limit(self, group: Group, limits: Limits) -> None:
        assert isinstance(group, GroupV1)
        try:
            if limits.limits_io:
                group.enter(BLOCKS, self._directories[BLOCKS] / group.name)
            for controller, directory in group.directories.items():
                self._limit(controller, directory, limits)
            if limits.memory_bytes:
                group.watch_memory()
        except OSError as error:
            raise failed(f"cannot limit the cgroup {group.name!r} ({error.filename})", error) from error

    def _directories_of(self, name: str) -> dict[str, Path]:
        """Without that for disks, which has those groups alone that are limited in it."""
        return {controller: directory / name for controller, directory in self._directories.items() if controller != BLOCKS}

    def leftovers(self) -> list[Group]:
        names = {entry.name for directory in self._directories.values() for entry in directory.iterdir() if entry.is_dir()}
        return [GroupV1(name, {what: path / name for what, path in self._directories.items()}) for name in sorted(names)]

    def neighbours(self) -> list[str]:
        return sorted(entry.name for entry in self._directories["freezer"].parent.iterdir() if entry.is_dir())

    def neighbour(self, name: str) -> Hierarchy:
        return HierarchyV1({controller: directory.parent for controller, directory in self._directories.items()}, name)

    def close(self) -> None:
        if self._lock < 0:
            return
        for directory in sorted(set(self._directories.values()) - {self._directories["freezer"]}):
            with contextlib.suppress(OSError):
                directory.rmdir()
        with contextlib.suppress(OSError):
            self._directories["freezer"].rmdir()
        os.close(self._lock)
        self._lock = -1

    @staticmethod
    def _limit(controller: str, directory: Path, limits: Limits) -> None:
        if controller == "memory" and limits.memory_bytes:
            write(directory / "memory.limit_in_bytes", limits.memory_bytes)
            with_swap = directory / "memory.memsw.limit_in_bytes"
            if with_swap.exists():
                write(with_swap, limits.memory_bytes + limits.swap_bytes)
        elif controller == "pids" and limits.pids:
            write(directory / "pids.max", limits.pids)
        elif controller == "cpu":
            if limits.cpu_percent:
                write(directory / "cpu.cfs_period_us", CPU_PERIOD_US)
                write(directory / "cpu.cfs_quota_us", limits.cpu_quota_us())
            if limits.cpu_weight:
                write(directory / "cpu.shares", max(2, limits.cpu_weight * 1024 // DEFAULT_WEIGHT))
        elif controller == "blkio":
            _limit_io(directory, limits)


def _limit_io(directory: Path, limits: Limits) -> None:
    """On v1 what the kernel writes back later is nobody's: bytes written are limited for direct and synchronous writes alone."""
    if limits.io_weight:
        file = next(directory / name for name in IO_WEIGHTS if (directory / name).exists())
        write(file, max(10, min(limits.io_weight, 1_000)))
    throttles = {"read": limits.io_read_bytes_per_s, "write": limits.io_write_bytes_per_s}
    for what, value in throttles.items():
        for disk in disks() if value else ():
            write(directory / f"blkio.throttle.{what}_bps_device", f"{disk} {value}")
