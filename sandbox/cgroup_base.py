"""What the two cgroup backends share: the interface of a group, and small reads and writes of control files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.errors import SandboxError

REMOVE_TIMEOUT_S = 2.0
"""How long a removal waits for killed processes to leave: an exit that has gigabytes to free takes this long."""

CPU_PERIOD_US = 100_000
"""The kernel's default bandwidth period (sched-bwc.rst); a quota may not be under 1,000."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


FIELDS: dict[str, tuple[str, ...]] = {
    "memory": ("memory_bytes",),
    "pids": ("pids",),
    "cpu": ("cpu_percent",),
    "cpu weight": ("cpu_weight",),
    "io": ("io_read_bytes_per_s", "io_write_bytes_per_s"),
    "io weight": ("io_weight",),
}
"""What each resource is limited by, as fields of Limits. `swap_bytes` goes with the memory."""
RESOURCES = ("memory", "pids", "cpu")
"""Those that a host for sandboxes is expected to hold."""
DEFAULT_WEIGHT, MAX_WEIGHT = 100, 10_000
"""Of cgroup v2; v1 has other scales, to which a weight is converted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps of a group; 0 means none, but for `swap_bytes`. `cpu_percent` is of one CPU, so 200 is two of them.

    Weights are shares of what is contended for, from 1 to 10,000, where 100 is the usual one. Bytes per second are of every disk.
    """

    memory_bytes: int = 0
    pids: int = 0
    cpu_percent: int = 0
    swap_bytes: int = 0
    """Beside `memory_bytes`, where that is limited."""
    cpu_weight: int = 0
    io_weight: int = 0
    io_read_bytes_per_s: int = 0
    io_write_bytes_per_s: int = 0

    @property
    def limits_io(self) -> bool:
        return bool(self.io_weight or self.io_read_bytes_per_s or self.io_write_bytes_per_s)

    def cpu_quota_us(self) -> int:
        return max(1_000, self.cpu_percent * CPU_PERIOD_US // 100)


@dataclass(frozen=True, slots=True)
class GroupEvents:
    """What the kernel counted for a group since its creation: kills for lack of memory, refused forks, peak memory, CPU time.

    `stalled_s`: by resource, how long some of it waited for it (PSI, Documentation/accounting/psi.rst); v2 alone tells.
    """

    oom_kills: int = 0
    pids_limit_hits: int = 0
    memory_peak_bytes: int = 0
    cpu_s: float = 0.0
    stalled_s: dict[str, float] = field(default_factory=dict)


class Group(ABC):
    """One cgroup of ours, for one sandbox."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._last = GroupEvents()
        self._removed = False

    @abstractmethod
    def attach(self, pid: int) -> None:
        """Move a process and all its threads in. Raises SandboxError when it is gone or may not be moved."""

    @abstractmethod
    def join(self) -> None:
        """Move the calling process in, which has one thread. Raises SandboxError."""

    @abstractmethod
    def directory_fd(self) -> int:
        """An open descriptor of the directory for CLONE_INTO_CGROUP, owned by the group. Raises SandboxError on v1."""

    def oom_descriptor(self) -> int:
        """Owned by the group: becomes readable when the memory limit is hit and the caller is to kill(). -1: the kernel kills."""
        return -1

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to every process in the group, forks under way included. Returns before all of them are gone."""

    @abstractmethod
    def empty(self) -> bool:
        """Whether no live process is in the group. True once removed."""

    @abstractmethod
    def _read_events(self) -> GroupEvents: ...

    @abstractmethod
    def _remove(self, timeout_s: float) -> None: ...

    def events(self) -> GroupEvents:
        """The counters now; after the removal, those read just before it."""
        if not self._removed:
            self._last = self._read_events()
        return self._last

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Delete the group once its processes have left; again is harmless.

        Raises SandboxError when some remain after `timeout_s` seconds.
        """
        if self._removed:
            return
        self.events()
        self._remove(timeout_s)
        self._removed = True


class Hierarchy(ABC):
    """Our own directory in the host's hierarchies, under which the groups live."""

    backend = "none"

    @abstractmethod
    def layers(self) -> dict[str, str]: ...

    @abstractmethod
    def create(self, name: str) -> Group:
        """A group without limits."""

    @abstractmethod
    def limit(self, group: Group, limits: Limits) -> None:
        """Limit a group of ours that has had no limits before."""

    @abstractmethod
    def leftovers(self) -> list[Group]:
        """The groups that stand in our directory and that this object did not make."""

    @abstractmethod
    def neighbours(self) -> list[str]:
        """The names of the directories beside ours, those of others and our own among them."""

    @abstractmethod
    def neighbour(self, name: str) -> Hierarchy:
        """The same for a directory beside ours. Raises SandboxError when another process uses it."""

    @abstractmethod
    def close(self) -> None: ...


def check_name(name: str) -> str:
    """The name unchanged. Raises SandboxError if it could leave our directory or clash with a control file (those have a dot)."""
    if not _NAME.fullmatch(name) or name == "supervisor":
        raise SandboxError(
            f"{name!r} cannot name a cgroup.",
            step="cgroup",
            errno=errno.EINVAL,
            hint="Use up to 128 letters, digits, '-' and '_', and not 'supervisor'.",
        )
    return name


def failed(what: str, error: OSError, hint: str = "") -> SandboxError:
    return SandboxError(f"{what}: {error.strerror}.", step="cgroup", errno=error.errno or 0, hint=hint)


def write(path: Path, value: str | int) -> None:
    """One write(2), as control files demand. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"{value}".encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65_536)
    finally:
        os.close(descriptor)


def read_int(path: Path) -> int:
    """The number in a control file; 0 if the file is not there or has no number."""
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return 0


def read_stat(path: Path) -> dict[str, int]:
    """A control file of lines "name number"; empty if it is not there."""
    values: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in _read(path).decode().splitlines():
            name, _, number = line.partition(" ")
            if number.isdigit():
                values[name] = int(number)
    return values


def stalled_s(directory: Path) -> dict[str, float]:
    """Seconds that some tasks of a v2 cgroup waited for cpu, memory and io; those that the kernel does not tell are left out."""
    found: dict[str, float] = {}
    for resource in ("cpu", "memory", "io"):
        with contextlib.suppress(OSError, ValueError):
            some = (directory / f"{resource}.pressure").read_text().split("\n", 1)[0]
            found[resource] = int(some.rpartition("total=")[2]) / 1e6
    return found


def disks() -> list[str]:
    """The numbers (major:minor) of this host's disks: requests to partitions and mapped devices count at the disks below."""
    found = []
    with contextlib.suppress(OSError):
        for disk in sorted(Path("/sys/block").iterdir()):
            if not disk.name.startswith(_NO_DISKS) and not any((disk / "slaves").glob("*")):
                with contextlib.suppress(OSError):
                    found.append((disk / "dev").read_text().strip())
    return found


_NO_DISKS = ("loop", "ram", "zram", "nbd")


def pids_in(directory: Path) -> list[int]:
    """The processes of a cgroup; those that our PID namespace cannot see are left out. Empty if the cgroup is gone."""
    try:
        found = [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed between the open and the read
            return []
        raise
    return [pid for pid in found if pid > 0]


def claim(directory: Path) -> int:
    """Make our directory and lock it, so that a second daemon of the same name cannot sweep the groups of the first.

    Returns the descriptor that holds the lock. Raises OSError; EWOULDBLOCK when another process holds it.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o755)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink and os.fstat(descriptor).st_ino == directory.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass  # its last owner removed it between our open and our lock
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
