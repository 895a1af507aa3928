"""Memory, process and CPU caps for whole process trees, on cgroup v2 or v1, and a way to kill such a tree for good.

    cgroups = Cgroups.detect("agent-supervisor")
    group = cgroups.create("task-1", memory_bytes=512 << 20, pids=64)
    group.attach(pid)
    ...
    group.kill()
    group.remove()
    print(group.events())

Everything happens below one directory, named by the caller, in this process's own cgroup; nothing else is ever written to.
"""

from __future__ import annotations

import contextlib
import errno
import re
from functools import partial
from pathlib import Path

from sandbox.cgroup_base import FIELDS, REMOVE_TIMEOUT_S, RESOURCES, Group, GroupEvents, Hierarchy, Limits, check_name
from sandbox.cgroup_paths import Hierarchies, hierarchies
from sandbox.cgroup_v1 import HierarchyV1
from sandbox.cgroup_v2 import SCOPE_HINT, HierarchyV2, delegated_base
from sandbox.errors import SandboxError

__all__ = ["FIELDS", "RESOURCES", "Cgroups", "Group", "GroupEvents", "Limits"]

_NUMBERED = re.compile(r"(.*[^0-9])[0-9]+")


class Cgroups:
    """The cgroups of one daemon. `backend` is "v2", "v1" or "none"; `reason` says why it is none."""

    def __init__(self, hierarchy: Hierarchy | None, reason: str = "", name: str = "") -> None:
        self._hierarchy = hierarchy
        self.reason = reason
        self._name = name
        self._closed = False  # then the name may be another daemon's
        self._busy: list[Group] = []

    @classmethod
    def detect(cls, name: str, parent: str | None = None) -> Cgroups:
        """Take the best hierarchy that this host lets us use, and lock the directory `name` in it.

        `parent` is a cgroup path as in /proc/self/cgroup to work under instead of our own. On v2 this moves the calling process,
        and any children that it has, into a child named "supervisor". Raises SandboxError for a bad name, and when another
        process uses the same name.
        """
        check_name(name)
        try:
            found = hierarchies(parent)
        except OSError as error:
            return cls(None, f"/proc cannot be read: {error.strerror}")
        reasons = []
        for attempt in (partial(_try_v2, given=parent is not None), _try_v1):
            try:
                return cls(attempt(found, name), name=name)
            except SandboxError as error:
                if error.errno == errno.EWOULDBLOCK:
                    raise
                reasons.append(error.message)
        return cls(None, " ".join(reasons))

    @property
    def backend(self) -> str:
        return self._hierarchy.backend if self._hierarchy else "none"

    def layers(self) -> dict[str, str]:
        """For each resource of FIELDS: the version that enforces it, or the reason why none does."""
        return self._hierarchy.layers() if self._hierarchy else dict.fromkeys(FIELDS, self.reason)

    def create(self, name: str, **fields: int) -> Group:
        """Make an empty group with these fields of Limits.

        Raises SandboxError, with nothing left behind, when a limit cannot be enforced here or the name is taken.
        """
        self._check(fields)
        group = self._usable().create(name)
        try:
            self._usable().limit(group, Limits(**fields))
        except BaseException:
            group.remove()
            raise
        return group

    def limit(self, group: Group, **fields: int) -> None:
        """Limit a group that was made without limits; processes may be in it already. Raises SandboxError."""
        self._check(fields)
        self._usable().limit(group, Limits(**fields))

    def _usable(self) -> Hierarchy:
        if self._hierarchy is None:
            raise SandboxError(f"no cgroups here: {self.reason}", step="cgroup", errno=errno.ENOTSUP)
        if self._closed:
            raise SandboxError("these cgroups have been closed.", step="cgroup", errno=errno.EBADF)
        return self._hierarchy

    def _check(self, fields: dict[str, int]) -> None:
        for resource, how in self._usable().layers().items():
            if any(fields.get(name) for name in FIELDS[resource]) and how != self.backend:
                raise SandboxError(f"the {resource} limit cannot be enforced: {how}.", step="cgroup", errno=errno.ENOTSUP)

    def sweep(self, timeout_s: float = REMOVE_TIMEOUT_S) -> list[str]:
        """Kill and remove the groups of ours that an earlier run left; returns their names. Call it before the first create().

        Raises SandboxError when one cannot be emptied within `timeout_s` seconds.
        """
        left = self._hierarchy.leftovers() if self._hierarchy and not self._closed else []
        for group in left:
            group.kill()
            group.remove(timeout_s)
        return [group.name for group in left]

    def sweep_abandoned(self, timeout_s: float = REMOVE_TIMEOUT_S) -> list[str]:
        """Kill and remove the directories of processes that were killed; returns their names.

        They are those whose name is ours up to a number at its end, such as that of a process, and which nobody holds.
        """
        stem = _NUMBERED.fullmatch(self._name)
        if not stem or not self._hierarchy or self._closed:
            return []
        swept = []
        for name in self._hierarchy.neighbours():
            other = _NUMBERED.fullmatch(name)
            if name != self._name and other and other[1] == stem[1]:
                with contextlib.suppress(SandboxError):  # it is in use, or another user's
                    abandoned = Cgroups(self._hierarchy.neighbour(name), name=name)
                    abandoned.sweep(timeout_s)
                    abandoned.close()
                    swept.append(name)
        return swept

    def bury(self, group: Group) -> list[SandboxError]:
        """Remove a group whose processes have ended, and those that were still busy when they were buried; what fails of that."""
        errors, left = [], [*self._busy, group]
        self._busy = []
        for one in left:
            try:
                one.remove()
            except SandboxError as error:
                errors.append(error)
                self._busy.append(one)
        return errors

    def close(self) -> None:
        """Remove our directory if no group is left in it, and let go of its name. Again is harmless."""
        if self._hierarchy and not self._closed:
            self._hierarchy.close()
        self._closed = True


def _try_v2(found: Hierarchies, name: str, *, given: bool) -> Hierarchy:
    if found.v2 is None:
        raise SandboxError("no cgroup v2 is mounted.", step="cgroup", errno=errno.ENOTSUP)
    base: Path | None = found.v2 if given else delegated_base(found.v2)
    if base is None:
        raise SandboxError(f"the cgroup {found.v2} is not delegated to us.", step="cgroup", errno=errno.EPERM, hint=SCOPE_HINT)
    return HierarchyV2(base, name)


def _try_v1(found: Hierarchies, name: str) -> Hierarchy:
    if not found.v1:
        raise SandboxError("no cgroup v1 is mounted.", step="cgroup", errno=errno.ENOTSUP)
    return HierarchyV1(found.v1, name)
