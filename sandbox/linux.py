"""System calls that Python does not wrap, by ctypes. Nothing here mounts: that is mounts.py, behind its guard.

Numbers of calls since Linux 5.1 are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct

from sandbox.errors import SandboxError

# linux/sched.h
CLONE_PIDFD, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x1000, 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
CLONE_NEWTIME = 0x80
"""For unshare alone: a process is in it from its next execve on (since Linux 6.3), its children at once (time_namespaces(7))."""
CLONE_INTO_CGROUP = 0x200000000
# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 23, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CLONE3, _SYS_CLOSE_RANGE, _SYS_OPENAT2 = 435, 436, 437
_CLOSE_RANGE_CLOEXEC = 4
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x01, 0x02, 0x04, 0x10
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SIOCSIFADDR = 0x8916

_libc = ctypes.CDLL(None, use_errno=True)
_holding_gil = ctypes.PyDLL(None, use_errno=True)
"""For clone3: a child must not begin by waiting for the interpreter's lock."""


def syscall(step: str, what: str, number: int, *arguments: int | bytes | ctypes.c_void_p) -> int:
    """The result of a system call; raises SandboxError with its errno."""
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return checked(step, what, int(_libc.syscall(ctypes.c_long(number), *words)))


def checked(step: str, what: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise SandboxError(f"{what}: {os.strerror(code)}.", step=step, errno=code)
    return result


def clone(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """fork(2) into new namespaces, by clone3(2): (pid, pidfd) in the parent, (0, -1) in the child.

    Only for a process with one thread. `cgroup` is a descriptor of the group to be born in. The interpreter's own fork hooks do
    not run in the child: it may do no more than prepare an exec.
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup >= 0 else 0)
    arguments = struct.pack(
        "=11Q", flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup if cgroup >= 0 else 0
    )
    result = int(_holding_gil.syscall(ctypes.c_long(_SYS_CLONE3), arguments, ctypes.c_long(len(arguments))))
    return checked("namespaces", "clone3", result), pidfd.value


def pid_in_proc(pidfd: int) -> int:
    """The number by which the mounted /proc knows a process: in a PID namespace of ours it is not what a fork gave us."""
    descriptor = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        told = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith(b"Pid:"))


def unshare(flags: int) -> None:
    checked("namespaces", "unshare", int(_libc.unshare(ctypes.c_int(flags))))


def prctl(option: int, *arguments: int) -> int:
    words = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return checked("privileges", f"prctl {option}", int(_libc.prctl(ctypes.c_int(option), *words)))


def drop_bounding_set() -> None:
    """No exec of this process or its children can gain a capability any more (capabilities(7))."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_READ, capability)
        except SandboxError:
            return
        prctl(PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Give up every capability of this process (capset(2))."""
    keep_capabilities(0)


def keep_capabilities(kept: int) -> None:
    """Give up every capability of this process but those in a mask."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    checked("privileges", "capset", int(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0))))


def held_capabilities() -> int:
    """The mask of those that this process has in effect."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def fill_standard_descriptors() -> None:
    """Open /dev/null on each of 0 to 2 that is closed: otherwise the next socket takes its number, and is passed on by it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)  # the lowest number that is free


def above_standard(descriptor: int) -> int:
    """A copy that cannot be mistaken for standard input, output or error."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from `first` on to be closed by exec."""
    syscall("descriptors", "close_range", _SYS_CLOSE_RANGE, first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def close_all_but(*kept: int) -> None:
    """Close every descriptor from 3 on but these."""
    first = 3
    for descriptor in sorted(kept):
        if descriptor > first:
            syscall("descriptors", "close_range", _SYS_CLOSE_RANGE, first, descriptor - 1, 0)
        first = max(first, descriptor + 1)
    syscall("descriptors", "close_range", _SYS_CLOSE_RANGE, first, 0xFFFFFFFF, 0)


def open_path(path: str, resolve: int, directory: int = -100, *, flags: int = 0) -> int:
    """An O_PATH descriptor of a path, resolved as openat2(2) says; raises OSError."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC | flags, 0, resolve)
    arguments = (ctypes.c_long(directory), os.fsencode(path), how, ctypes.c_long(len(how)))
    result = int(_libc.syscall(ctypes.c_long(_SYS_OPENAT2), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def loopback_up() -> None:
    """Bring `lo` up in the network namespace of this process (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def loopback_address(address: str) -> None:
    """Give `lo` one more IPv4 address (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16sHH4s16x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address)))
