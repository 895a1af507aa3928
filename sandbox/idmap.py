"""User namespaces that only carry a map of ids, for mounts whose owners are shifted (mount_setattr(2), MOUNT_ATTR_IDMAP)."""

from __future__ import annotations

import os
import signal

from sandbox import linux
from sandbox.errors import SandboxError


def namespace(owner: tuple[int, int], worker: tuple[int, int]) -> int:
    """A descriptor of a user namespace in which what `owner` (uid, gid) has on disk belongs to `worker`. Needs root."""
    pid, pidfd = linux.clone(linux.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        write_maps(pid, (owner[0], worker[0]), (owner[1], worker[1]))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
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
        with open("/proc/self/setgroups", "w") as file:
            file.write("deny")
        write_maps(os.getpid(), (uid, uid), (gid, gid))
    except OSError as error:
        raise SandboxError(
            f"this host does not let user {uid} use user namespaces ({error.strerror}).",
            step="user namespace",
            errno=error.errno or 0,
            hint="See: agentctl doctor",
        ) from error


def write_maps(pid: int, uids: tuple[int, int], gids: tuple[int, int]) -> None:
    """Map one user and one group, each as (inside, outside) (user_namespaces(7)); raises OSError."""
    for name, (inside, outside) in (("uid_map", uids), ("gid_map", gids)):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(f"{inside} {outside} 1")
