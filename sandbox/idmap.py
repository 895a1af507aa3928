"""User namespaces that only carry a map of ids, for mounts whose owners are shifted (mount_setattr(2), MOUNT_ATTR_IDMAP)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from sandbox import linux
from sandbox.errors import SandboxError

Range = tuple[int, int]
"""The first id, and how many."""


def namespace(owner: tuple[int, int], worker: tuple[int, int], *, root: bool = False) -> int:
    """A descriptor of a user namespace in which what `owner` (uid, gid) has on disk belongs to `worker`. Needs root.

    Files of others keep their owners, so that the worker may do with them what `owner` may, or less. Files of root are the
    exception: root's uid has no place in the map, so they can be read by their mode and never written. With `root` it has
    one, for what the kernel itself makes there as root.
    """
    pid, pidfd = linux.clone(linux.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        process = f"/proc/{linux.pid_in_proc(pidfd)}"
        if root:
            _write(f"{process}/uid_map", with_root(owner[0], worker[0], known("uid_map")))
            _write(f"{process}/gid_map", with_root(owner[1], worker[1], known("gid_map")))
        else:
            _write(f"{process}/uid_map", lines(owner[0], worker[0], known("uid_map"), without=0))
            _write(f"{process}/gid_map", lines(owner[1], worker[1], known("gid_map")))
        return os.open(f"{process}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"{error.filename}: {error.strerror}.", step="idmap", errno=error.errno or 0) from error
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def own_namespace() -> None:
    """Move this process, not root, into a user namespace of its own, with its ids unchanged and every capability in it.

    Raises SandboxError where the host forbids that.
    """
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER)
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError as error:
        raise SandboxError(
            f"this host does not let user {uid} use user namespaces ({error.strerror}).",
            step="user namespace",
            errno=error.errno or 0,
            hint="See: agentctl doctor",
        ) from error


def known(name: str) -> list[Range]:
    """The ids that exist in our own user namespace, by its `uid_map` or `gid_map`: only those can be mapped further."""
    with open(f"/proc/self/{name}") as file:
        return [(int(first), int(count)) for first, _, count in map(str.split, file)]


def lines(owner: int, worker: int, exist: list[Range], without: int = -1) -> str:
    """The text of a map (user_namespaces(7)): `owner` becomes `worker`, every other id stays what it is.

    `worker` on disk has no place in it, for each id may be mapped to but once; nor has `without`, unless that is the owner.
    """
    rows = [f"{owner} {worker} 1"]
    for first, count in _gaps(exist, sorted({owner, worker, without})):
        rows.append(f"{first} {first} {count}")
    return "\n".join(rows)


def with_root(owner: int, worker: int, exist: list[Range]) -> str:
    """As `lines`, with a place for id 0: its own, or that of `worker`, if 0 is the owner."""
    rows = lines(owner, worker, exist)
    return rows if owner else f"{rows}\n{worker} 0 1"


def _gaps(ranges: list[Range], taken: list[int]) -> Iterator[Range]:
    """The ranges without the ids that are taken."""
    for first, count in ranges:
        end = first + count
        for id in (*(id for id in taken if first <= id < end), end):
            if id > first:
                yield first, id - first
            first = id + 1


def _write(path: str, text: str) -> None:
    """One write(2), as these files demand."""
    with open(path, "w") as file:
        file.write(text)
