"""The kernel's side of a supervised filter: loading it, reading what it shows, answering. Source: seccomp_unotify(2)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import NamedTuple

from sandbox import linux
from sandbox.errors import SandboxError
from sandbox.notify_filter import CALL, INSTRUCTION

_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SYS_PIDFD_OPEN, _SYS_PIDFD_GETFD = 434, 438
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_PIDFD_THREAD = os.O_EXCL
_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_SET_FLAGS, _SYNC_WAKE_UP = 0x40082104, 1
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QII")
"""The head of struct seccomp_notif; a struct seccomp_data follows."""
_NOTIFICATION_BYTES = _NOTIFICATION.size + CALL.size
_SPAN = struct.Struct("@PN")
"""struct iovec: address, length."""
_ANSWER = struct.Struct("=QqiI")
_PAGE = 4096
HERE = -100
"""AT_FDCWD."""

_libc = ctypes.CDLL(None, use_errno=True)


class Notification(NamedTuple):
    """A call that waits for its answer. `thread` is its number in our PID namespace, `data` its struct seccomp_data."""

    id: int
    thread: int
    data: bytes


class Caller(NamedTuple):
    """Who made a call. `pid` is as the sandbox itself counts; `seen` as our /proc does. 0 and "": it cannot be told."""

    pid: int
    seen: int
    name: str


def load(program: bytes) -> int:
    """Put this process under the filter; the descriptor on which the kernel shows its calls, closed on exec.

    The caller must have set no_new_privs, and the filter must allow what it takes to give the descriptor away. Raises
    SandboxError; the process is then unfiltered and must not go on.
    """
    number = _SYS_SECCOMP.get(platform.machine())
    if number is None:
        raise SandboxError(f"no call number known for {platform.machine()}.", step="supervise")
    address = ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p).value
    header = struct.pack("@HP", len(program) // INSTRUCTION.size, address)  # struct sock_fprog
    try:
        # Without it a signal handler, of which Go runs one each 10 ms, interrupts a call that is shown again and again.
        return linux.syscall("supervise", "seccomp", number, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, header)
    except SandboxError as error:
        if error.errno == errno.EBUSY:
            error.hint = "Something around us supervises calls already, and there can be but one: run with supervise off."
        if error.errno != errno.EINVAL:
            raise
    return linux.syscall("supervise", "seccomp", number, _SET_MODE_FILTER, _NEW_LISTENER, header)


def wake_at_once(listener: int) -> None:
    """Have a caller and its supervisor take turns on one processor, which is quicker; nothing before Linux 6.6."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)


def receive(listener: int) -> Notification | None:
    """The next call that waits; None: it has ended meanwhile."""
    space = bytearray(_NOTIFICATION_BYTES)
    try:
        fcntl.ioctl(listener, _RECEIVE, space, True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id, thread, _ = _NOTIFICATION.unpack_from(space)
    return Notification(id, thread, bytes(space[_NOTIFICATION.size :]))


def is_waiting(listener: int, notification: Notification) -> bool:
    """Whether the call still waits: what was read of the thread meanwhile was read of this thread, not of a later one."""
    try:
        fcntl.ioctl(listener, _IS_VALID, struct.pack("=Q", notification.id))
    except OSError:
        return False
    return True


def answer(listener: int, notification: Notification, error: int) -> None:
    """Let the call fail with `error`; 0: let the kernel carry it out, with all its own checks."""
    packed = _ANSWER.pack(notification.id, 0, -error, 0 if error else _CONTINUE)
    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
        fcntl.ioctl(listener, _SEND, packed)


def read_memory(thread: int, address: int, size: int) -> bytes:
    """At most `size` bytes of another process's memory, fewer where it ends; raises OSError (process_vm_readv(2))."""
    space = ctypes.create_string_buffer(size)
    ours, theirs = _SPAN.pack(ctypes.addressof(space), size), _SPAN.pack(address, size)
    one, no_flags = ctypes.c_ulong(1), ctypes.c_ulong(0)
    got = int(_libc.process_vm_readv(ctypes.c_int(thread), ours, one, theirs, one, no_flags))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return space.raw[:got]


def read_text(thread: int, address: int) -> str:
    """A path of another process; one that does not end within PATH_MAX is cut. Raises OSError."""
    read = b""
    while len(read) < _PAGE:
        # Never over the end of a page: what follows may not be there.
        part = read_memory(thread, address + len(read), _PAGE - (address + len(read)) % _PAGE)
        text, end, _ = part.partition(b"\0")
        read += text
        if end or not part:
            break
    return read[:_PAGE].decode(errors="backslashreplace")


def caller(thread: int) -> Caller:
    """Who it is, as far as can be told: a thread beside the first has a number in /proc only since Linux 6.9."""
    try:
        pidfd = _pidfd(thread)
    except OSError:
        return Caller(0, 0, "")
    try:
        seen = linux.pid_in_proc(pidfd)
        with open(f"/proc/{seen}/status", errors="backslashreplace") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if line.startswith(("Name:", "NStgid:")))
        return Caller(int(fields["NStgid"].split()[-1]), seen, fields["Name"])
    except (OSError, KeyError, ValueError):
        return Caller(0, 0, "")
    finally:
        os.close(pidfd)


def directory(thread: int, descriptor: int) -> str:
    """Where a relative path of this thread begins, as its own mount namespace has it; empty: it cannot be told."""
    if descriptor == HERE:
        return _link(f"/proc/{caller(thread).seen}/cwd")
    try:
        pidfd = _pidfd(thread)
    except OSError:
        return ""
    try:
        # Its /proc/PID/fd is closed to whoever is not its user.
        copy = linux.syscall("supervise", "pidfd_getfd", _SYS_PIDFD_GETFD, pidfd, descriptor, 0)
    except SandboxError:
        return ""
    finally:
        os.close(pidfd)
    try:
        return _link(f"/proc/self/fd/{copy}")
    finally:
        os.close(copy)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _pidfd(thread: int) -> int:
    try:
        return _opened(thread, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _opened(thread, 0)


def _opened(thread: int, flags: int) -> int:
    try:
        return linux.syscall("supervise", "pidfd_open", _SYS_PIDFD_OPEN, thread, flags)
    except SandboxError as error:
        raise OSError(error.errno, os.strerror(error.errno)) from error
