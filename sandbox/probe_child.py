"""Try the kernel's isolation mechanisms one by one, each in a forked child, and print the outcome as JSON.

To be run in a process of its own: forking and unsharing are safe only in a process with one thread. Whatever mounts does so by
way of mounts.py, whose guard asks for a mount namespace that the process has made itself.

A trial returns words about how the mechanism works here, and raises OSError or SandboxError when it does not.
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

from sandbox import landlock, linux
from sandbox import seccomp as filters
from sandbox.errors import SandboxError
from sandbox.mounts import PrivateMounts

# linux/prctl.h, linux/seccomp.h, linux/filter.h
PR_SET_SECCOMP, PR_GET_NO_NEW_PRIVS = 22, 39
SECCOMP_MODE_FILTER, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 2, 0x00050000, 0x7FFF0000
BPF_LOAD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
# The same on every architecture, as all since Linux 5.1
SYS_CLOSE_RANGE = 436
GETPPID = {"x86_64": 110, "aarch64": 173, "riscv64": 173, "ppc64le": 64, "s390x": 64}
SIZE, INODES = 64 << 10, 16

Trial = Callable[[str], str]
"""Takes an empty directory to mount on."""

NOBODY = 65534
DENIED = 75
"""An errno that getppid never gives, so that only our filter can be its source."""


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
        linux.unshare(flags)
        return
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | flags)
    map_ids(os.getpid(), 0, uid, gid)


def user_namespace(scratch: str) -> str:
    """As an ordinary user, whoever we are: root can always."""
    if os.geteuid() == 0:
        os.chown(scratch, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)  # or /proc/self would belong to root
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    map_ids(os.getpid(), 0, uid, gid)
    PrivateMounts().tmpfs(scratch, SIZE, INODES)
    return f"unshare, uid_map and a mount inside, as uid {uid}"


def mount_namespace(scratch: str) -> str:
    enter(linux.CLONE_NEWNS)
    PrivateMounts().tmpfs(scratch, SIZE, INODES)
    return "a private tmpfs"


def pid_namespace(scratch: str) -> str:
    enter(linux.CLONE_NEWPID)
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
    enter(linux.CLONE_NEWNS)
    private = PrivateMounts()
    private.tmpfs(scratch, SIZE, INODES)
    os.chdir(scratch)
    private.make_root()
    private.let_go()
    if os.listdir("/"):
        raise OSError(errno.EPERM, "the old root can still be seen", "pivot_root")
    return "into an empty root"


def idmapped_mounts(scratch: str) -> str:
    if os.geteuid():
        raise OSError(errno.EPERM, "needs root", "mount_setattr")
    first = 100_000
    linux.unshare(linux.CLONE_NEWNS)
    private = PrivateMounts()
    ready, done = os.pipe()
    holder = os.fork()
    if holder == 0:
        with contextlib.suppress(SandboxError):
            linux.unshare(linux.CLONE_NEWUSER)
        os.close(done)
        signal.pause()
    try:
        os.close(done)
        os.read(ready, 1)  # end of file: the holder has left our user namespace, or could not
        map_ids(holder, 0, first, first, 10)
        users = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)
        tree = private.tree(linux.open_path(scratch, 0), attributes=0, users=users)
        if os.fstat(tree).st_uid != first:
            raise OSError(errno.EPERM, "owners were not shifted", "mount_setattr")
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    return "open_tree and mount_setattr shift the owner of a directory"


def copy_on_write(scratch: str) -> str:
    """As the views of workspaces are made."""
    enter(linux.CLONE_NEWNS)
    private = PrivateMounts()
    os.chdir(scratch)
    for name in ("below", "above", "above/upper", "above/work"):
        os.mkdir(name)
    below, above = (private.tree(linux.open_path(name, 0), attributes=0) for name in ("below", "above"))
    view = private.overlay(below, above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=view))
    if os.listdir("below") or os.listdir("above/upper") != ["file"]:
        raise OSError(errno.EPERM, "what was written did not go into the upper layer", "overlay")
    return f"what is written to a directory in {os.path.dirname(scratch)} goes elsewhere"


def no_new_privs(scratch: str) -> str:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if linux.prctl(PR_GET_NO_NEW_PRIVS) != 1:
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
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))
    try:
        linux.syscall("seccomp", "getppid", number)
    except SandboxError as error:
        if error.errno == DENIED:
            return "a filter refuses a system call"
    raise OSError(errno.EPERM, "the filter was taken but refuses nothing", "seccomp")


def libseccomp(scratch: str) -> str:
    """Our own filter, as a sandbox gets it."""
    program = filters.compile_filter()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    filters.load_filter(program)
    try:
        linux.unshare(linux.CLONE_NEWUTS | linux.CLONE_NEWUSER)
    except SandboxError as error:
        if error.errno == errno.EPERM:
            return f"our filter is compiled, {len(program) // filters.INSTRUCTION_BYTES} instructions, and refuses unshare"
    raise OSError(errno.EPERM, "our filter was taken but refuses nothing", "seccomp")


def landlock_files(scratch: str) -> str:
    abi = landlock.version()
    landlock.check(abi)
    rules = landlock.ruleset(abi, {"/": landlock.EXECUTE})
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(rules)
    try:
        os.close(os.open("/proc/self/status", os.O_RDONLY))
    except PermissionError:
        return f"version {abi}, a rule refuses a read"
    raise OSError(errno.EPERM, "the rules were taken but refuse nothing", "landlock")


def landlock_scopes(scratch: str) -> str:
    abi = landlock.version()
    rules = landlock.ruleset(abi, {"/": landlock.READ})
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(rules)
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return f"version {abi}, a signal to another process is refused"
    raise OSError(errno.ENOTSUP, f"version {abi} has no scopes: only the namespaces keep signals and abstract sockets in", "")


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
    linux.syscall("close_range", "close_range", SYS_CLOSE_RANGE, descriptor, descriptor, 0)
    try:
        os.fstat(descriptor)
    except OSError:
        return "closes"
    raise OSError(errno.EPERM, "the descriptor is still open", "close_range")


TRIALS: dict[str, Trial] = {
    "user namespace": user_namespace,
    "mount namespace": mount_namespace,
    "pid namespace": pid_namespace,
    "net namespace": other_namespace("net", linux.CLONE_NEWNET),
    "ipc namespace": other_namespace("ipc", linux.CLONE_NEWIPC),
    "uts namespace": other_namespace("uts", linux.CLONE_NEWUTS),
    "cgroup namespace": other_namespace("cgroup", linux.CLONE_NEWCGROUP),
    "time namespace": other_namespace("time_for_children", linux.CLONE_NEWTIME),
    "pivot_root": pivot_root,
    "id-mapped mounts": idmapped_mounts,
    "copy-on-write views": copy_on_write,
    "no_new_privs": no_new_privs,
    "seccomp": seccomp,
    "libseccomp": libseccomp,
    "landlock files": landlock_files,
    "landlock scopes": landlock_scopes,
    "pidfd": pidfd,
    "close_range": close_range,
}


def _answer(trial: Trial, scratch: str, writable: int) -> NoReturn:
    try:
        signal.alarm(10)
        try:
            outcome = {"ok": True, "how": trial(scratch)}
        except SandboxError as error:
            outcome = {"ok": False, "how": error.message.removesuffix(".")}
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


def main() -> None:
    print(json.dumps({name: attempt(trial) for name, trial in TRIALS.items()}))  # noqa: T201
