"""Between tasks: nothing of one that another could find is left in the sandbox, or the worker takes no other."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervisord_agents.workers.emptying import empty

CLEAR_UP_S = 5.0
"""For removing files; then the worker leaves, and they go with its sandbox."""
_SHARED_MEMORY = ("/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem")
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))


class Rooms:
    """The private directories of this sandbox, and the condition that the runtime itself is in."""

    def __init__(self, directories: Iterable[str]) -> None:
        directories = [path for path in directories if os.path.isdir(path) and not os.path.islink(path)]
        mounted = set(mount_points(Path("/proc/self/mountinfo").read_bytes()))
        self._keep, ways = kept(directories, mounted)
        # What leads to something mounted stays, but nothing else beside it.
        self._modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in (*directories, *ways)}
        self._condition = _condition() if self._modes else None

    def clear_up(self) -> None:
        """Make everything as it was before the first task; raises OSError if it cannot be."""
        if self._condition is None:
            return
        for path, mode in self._modes.items():
            if stat.S_IMODE(os.stat(path).st_mode) != mode:
                os.chmod(path, mode)
            empty(path, within_s=CLEAR_UP_S, keep=self._keep)
        for table in _SHARED_MEMORY:
            if os.path.exists(table) and len(Path(table).read_bytes().splitlines()) > 1:
                raise OSError("shared memory, or another object of System V, was left behind")
        # A process of the same user may change these from outside (prlimit(2), setpriority(2), sched_setaffinity(2)).
        if _condition() != self._condition:
            raise OSError("limits or the priority of the worker were changed")


def kept(directories: Iterable[str], mounted: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    """What must stay in `directories`: what is mounted below them, and (also as a list) the directories on the way to it."""
    keep: set[str] = set()
    ways: dict[str, None] = {}
    for directory in directories:
        for mount in mounted:
            if mount.startswith(f"{directory}/"):
                keep.add(mount)
                ways.update(
                    dict.fromkeys(str(parent) for parent in Path(mount).parents if str(parent).startswith(f"{directory}/"))
                )
    return frozenset((*keep, *ways)), [way for way in ways if way not in mounted]


def mount_points(mountinfo: bytes) -> Iterator[str]:
    """The places of proc_pid_mountinfo(5), where blanks and backslashes are octal escapes."""
    for line in mountinfo.splitlines():
        place = line.split(b" ")[4]
        for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
            place = place.replace(code, character)
        yield os.fsdecode(place)


def _condition() -> tuple[object, ...]:
    limits = [resource.getrlimit(limit) for limit in _LIMITS]
    return (*limits, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.sched_getscheduler(0))
