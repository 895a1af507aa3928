"""Try the kernel's isolation mechanisms one by one, each in a forked child, and print the outcome as JSON.

Run as a script in a process of its own (`python -I probe_child.py`): forking and unsharing are safe only in a process with one
thread. It imports the standard library alone. Whatever mounts does so in a child that has left the mount namespace of its parent
and has checked that it has: without the check, a mount would change the root of the whole machine.

A trial returns words about how the mechanism works here, and raises OSError when it does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import signal
import struct
import tempfile
from collections.abc import Callable
from typing import NoReturn

# linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
# linux/mount.h
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 16384, 1 << 18, 2
OPEN_TREE_CLONE, MOUNT_ATTR_IDMAP, AT_EMPTY_PATH = 1, 0x00100000, 0x1000
# linux/prctl.h, linux/seccomp.h, linux/filter.h
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 4, 22, 38, 39
SECCOMP_MODE_FILTER, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 2, 0x00050000, 0x7FFF0000
BPF_LOAD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
# linux/landlock.h
LANDLOCK_VERSION, LANDLOCK_READ_FILE = 1, 1 << 2
# Numbers that are the same on every architecture (those since Linux 5.1 are)
SYS_OPEN_TREE, SYS_CLOSE_RANGE, SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_RESTRICT = 428, 436, 442, 444, 446
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
GETPPID = {"x86_64": 110, "aarch64": 173, "riscv64": 173, "ppc64le": 64, "s390x": 64}

Trial = Callable[[str], str]
"""Takes an empty directory to mount on."""

FIRST_MOUNT_NAMESPACE = os.readlink("/proc/self/ns/mnt")

NOBODY = 65534
DENIED = 75
"""An errno that getppid never gives, so that only our filter can be its source."""

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def syscall(what: str, number: int, *arguments: int | bytes | ctypes.c_void_p) -> int:
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return check(int(libc.syscall(ctypes.c_long(number), *words)), what)


def prctl(what: str, option: int, *arguments: int) -> int:
    words = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return check(int(libc.prctl(ctypes.c_int(option), *words)), what)


def unshare(flags: int) -> None:
    check(int(libc.unshare(ctypes.c_int(flags))), "unshare")


class PrivateMounts:
    """The only door to mounts here; it opens in a mount namespace that this process has made itself."""

    def __init__(self) -> None:
        """Raises OSError, with nothing mounted, in the mount namespace that this module was loaded in."""
        if os.readlink("/proc/self/ns/mnt") == FIRST_MOUNT_NAMESPACE:
            raise OSError(errno.EPERM, "still in the mount namespace of the parent, refused to mount")
        self._mount(None, "/", None, MS_REC | MS_PRIVATE, None)

    def tmpfs(self, target: str) -> None:
        self._mount(b"tmpfs", target, b"tmpfs", MS_NOSUID | MS_NODEV, b"size=64k")

    def shifted(self, path: str, users: int) -> int:
        """A descriptor of a detached copy of a directory, whose owners the maps of a user namespace shift."""
        tree = syscall("open_tree", SYS_OPEN_TREE, -100, os.fsencode(path), OPEN_TREE_CLONE | os.O_CLOEXEC)
        attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, users)
        syscall("mount_setattr", SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
        return tree

    def make_root(self, new: str, old: str) -> None:
        """Make `new` the root and detach the old one, which was put on `old` below it."""
        number = PIVOT_ROOT.get(platform.machine())
        if number is None:
            raise OSError(errno.ENOSYS, f"no system call number known for {platform.machine()}")
        syscall("pivot_root", number, os.fsencode(new), os.fsencode(old))
        os.chdir("/")
        below = b"/" + os.fsencode(os.path.relpath(old, new))
        check(int(libc.umount2(below, ctypes.c_int(MNT_DETACH))), "umount the old root")

    @staticmethod
    def _mount(source: bytes | None, target: str, kind: bytes | None, flags: int, data: bytes | None) -> None:
        check(int(libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), data)), f"mount on {target}")


def map_ids(pid: int, inside: int, uid: int, gid: int, count: int = 1) -> None:
    """Write the id maps of a user namespace (user_namespaces(7)); setgroups must be denied first where we have no privilege."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} {count}"), ("gid_map", f"{inside} {gid} {count}")):
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def enter(flags: int) -> None:
    """Enter new namespaces as the daemon would: directly when root, through a user namespace otherwise."""
    if os.geteuid() == 0:
        unshare(flags)
        return
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | flags)
    map_ids(os.getpid(), 0, uid, gid)


def user_namespace(scratch: str) -> str:
    """As an ordinary user, whoever we are: root can always."""
    if os.geteuid() == 0:
        os.chown(scratch, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 1)  # or /proc/self would belong to root
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    map_ids(os.getpid(), 0, uid, gid)
    PrivateMounts().tmpfs(scratch)
    return f"unshare, uid_map and a mount inside, as uid {uid}"


def mount_namespace(scratch: str) -> str:
    enter(CLONE_NEWNS)
    PrivateMounts().tmpfs(scratch)
    return "a private tmpfs"


def pid_namespace(scratch: str) -> str:
    enter(CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    if os.waitpid(child, 0)[1]:
        raise OSError(errno.EPERM, "the first child is not PID 1", "unshare")
    return "the first child is PID 1"


def other_namespace(name: str, flag: int) -> Trial:
    def trial(scratch: str) -> str:
        before = os.readlink(f"/proc/self/ns/{name}")
        enter(flag)
        if os.readlink(f"/proc/self/ns/{name}") == before:
            raise OSError(errno.EPERM, "unshare succeeded but nothing changed", "unshare")
        return "unshare"

    return trial


def pivot_root(scratch: str) -> str:
    enter(CLONE_NEWNS)
    private = PrivateMounts()
    private.tmpfs(scratch)
    old = os.path.join(scratch, "old")
    os.mkdir(old)
    private.make_root(scratch, old)
    if os.listdir("/") != ["old"] or os.listdir("/old"):
        raise OSError(errno.EPERM, "the old root can still be seen", "pivot_root")
    return "into an empty root"


def idmapped_mounts(scratch: str) -> str:
    if os.geteuid():
        raise OSError(errno.EPERM, "needs root", "mount_setattr")
    first = 100_000
    unshare(CLONE_NEWNS)
    private = PrivateMounts()
    ready, done = os.pipe()
    holder = os.fork()
    if holder == 0:
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWUSER)
        os.close(done)
        signal.pause()
    try:
        os.close(done)
        os.read(ready, 1)  # end of file: the holder has left our user namespace, or could not
        map_ids(holder, 0, first, first, 10)
        users = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)
        if os.fstat(private.shifted(scratch, users)).st_uid != first:
            raise OSError(errno.EPERM, "owners were not shifted", "mount_setattr")
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    return "open_tree and mount_setattr shift the owner of a directory"


def no_new_privs(scratch: str) -> str:
    prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)
    if prctl("PR_GET_NO_NEW_PRIVS", PR_GET_NO_NEW_PRIVS) != 1:
        raise OSError(errno.EPERM, "the bit does not stick", "prctl")
    return "prctl"


def seccomp(scratch: str) -> str:
    number = GETPPID.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no system call number known for {platform.machine()}", "seccomp")
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (BPF_LOAD, 0, 0, 0),
            (BPF_JUMP_IF_EQUAL, 0, 1, number),
            (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | DENIED),
            (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        )
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)))
    prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)
    prctl("PR_SET_SECCOMP", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))
    try:
        syscall("getppid", number)
    except OSError as error:
        if error.errno == DENIED:
            return "a filter refuses a system call"
    raise OSError(errno.EPERM, "the filter was taken but refuses nothing", "seccomp")


def landlock(scratch: str) -> str:
    abi = syscall("landlock_create_ruleset", SYS_LANDLOCK_CREATE, 0, 0, LANDLOCK_VERSION)
    handled = struct.pack("=Q", LANDLOCK_READ_FILE)
    rules = syscall("landlock_create_ruleset", SYS_LANDLOCK_CREATE, handled, len(handled), 0)
    prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)
    syscall("landlock_restrict_self", SYS_LANDLOCK_RESTRICT, rules, 0)
    try:
        os.close(os.open("/proc/self/status", os.O_RDONLY))
    except PermissionError:
        return f"ABI {abi}, a rule refuses a read"
    raise OSError(errno.EPERM, "the rules were taken but refuse nothing", "landlock")


def pidfd(scratch: str) -> str:
    child = os.fork()
    if child == 0:
        signal.pause()
    descriptor = os.pidfd_open(child)
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    ended = os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
    if ended is None or ended.si_status != signal.SIGKILL:
        raise OSError(errno.ECHILD, "the child was not the one signalled", "waitid")
    return "open, signal and wait"


def close_range(scratch: str) -> str:
    descriptor = os.open("/", os.O_RDONLY)
    syscall("close_range", SYS_CLOSE_RANGE, descriptor, descriptor, 0)
    try:
        os.fstat(descriptor)
    except OSError:
        return "closes"
    raise OSError(errno.EPERM, "the descriptor is still open", "close_range")


TRIALS: dict[str, Trial] = {
    "user namespace": user_namespace,
    "mount namespace": mount_namespace,
    "pid namespace": pid_namespace,
    "net namespace": other_namespace("net", CLONE_NEWNET),
    "ipc namespace": other_namespace("ipc", CLONE_NEWIPC),
    "uts namespace": other_namespace("uts", CLONE_NEWUTS),
    "cgroup namespace": other_namespace("cgroup", CLONE_NEWCGROUP),
    "pivot_root": pivot_root,
    "id-mapped mounts": idmapped_mounts,
    "no_new_privs": no_new_privs,
    "seccomp": seccomp,
    "landlock": landlock,
    "pidfd": pidfd,
    "close_range": close_range,
}


def _answer(trial: Trial, scratch: str, writable: int) -> NoReturn:
    try:
        signal.alarm(10)
        try:
            outcome = {"ok": True, "how": trial(scratch)}
        except OSError as error:
            outcome = {"ok": False, "how": f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}"}
        os.write(writable, json.dumps(outcome).encode())
    finally:
        os._exit(0)


def attempt(trial: Trial) -> dict[str, str | bool]:
    """Run a trial in a child of its own, with a scratch directory, for at most ten seconds."""
    with tempfile.TemporaryDirectory(prefix="sandbox-probe-") as scratch:
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            _answer(trial, scratch, writable)
        os.close(writable)
        with open(readable, "rb") as pipe:
            answer = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found: dict[str, str | bool] = json.loads(answer) if answer else {"ok": False, "how": f"the trial ended with status {status}"}
    return found


if __name__ == "__main__":
    print(json.dumps({name: attempt(trial) for name, trial in TRIALS.items()}))  # noqa: T201
