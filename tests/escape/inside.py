"""Runs inside: each program in a process of its own, and prints what came of it, a JSON line each.

Alone in a file, on the system's Python without its packages: it is copied into the workspace. Programs see everything in here;
`words` is what they were given.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl  # noqa: F401  for programs
import json
import os
import resource  # noqa: F401
import select
import signal
import socket  # noqa: F401
import stat  # noqa: F401
import struct  # noqa: F401
import sys
import threading  # noqa: F401
import time
import traceback
from pathlib import Path

MARK = "ESCAPE "
MAX_OUTPUT = 1 << 18
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SYSCALLS = {
    "ptrace": 101, "syslog": 103, "personality": 135, "pivot_root": 155, "chroot": 161, "acct": 163, "mount": 165, "umount2":
    166, "swapon": 167, "reboot": 169, "sethostname": 170, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module":
    176, "modify_ldt": 154, "adjtimex": 159, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "mbind":
    237, "unshare": 272, "perf_event_open": 298, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "renameat2": 316, "kexec_file_load":
    320, "bpf": 321, "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "mount_setattr":
    442, "clone": 56, "linkat": 265, "fanotify_init": 300, "quotactl": 179, "shmget": 29, "shmat": 30, "msgget": 68, "msgsnd":
    69, "memfd_secret": 447, "landlock_create_ruleset": 444, "openat2": 437, "mq_open": 240, "mq_timedreceive": 243,
    "statmount": 457, "listmount": 458,
}  # fmt: skip
CLONE = {
    "mnt": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000,
    "net": 0x40000000, "time": 0x80,
}  # fmt: skip
words: dict = {}
MOUNTING = {"mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "mount_setattr", "setns"}


def tell(**facts: object) -> None:
    os.write(1, ("\n" + MARK + json.dumps(facts) + "\n").encode())


def call(name: str, *arguments: object) -> int:
    """A system call of x86-64; raises OSError."""
    if name in MOUNTING:
        be_harmless()
    result = libc.syscall(SYSCALLS[name], *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def be_harmless() -> None:
    """Raise unless this is another mount namespace than the host's, or a process that the kernel lets change nothing."""
    status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    if os.readlink("/proc/self/ns/mnt") == words["host_mounts"] and int(status["CapEff"], 16) != 0:
        raise RuntimeError("this is the host's own mount namespace: it would be changed")


def trying(name: str, what: object, *arguments: object, **more: object) -> object:
    """The value of a call, or None; what came of it is told under the name. OSError's subclasses have no number at times."""
    try:
        value = what(*arguments, **more)
    except (OSError, ValueError) as error:  # ValueError: of limits
        tell(refused={name: errno.errorcode.get(getattr(error, "errno", 0) or 0, type(error).__name__)})
        return None
    shown = value if isinstance(value, (int, str, float, list)) else str(value)
    tell(did={name: shown[:2000] if isinstance(shown, str) else shown})
    return value


def in_child(name: str, what: object, *arguments: object) -> int:
    """`trying` in a process that may be killed for it; a filter's SIGSYS is a refusal. Gives the status."""
    child = os.fork()
    if child == 0:
        trying(name, what, *arguments)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        tell(refused={name: signal.Signals(os.WTERMSIG(status)).name})
    return status


def read(path: object, length: int = 4096) -> str:
    with open(path, "rb") as file:
        return file.read(length).decode("latin-1")


def write(path: object, text: str) -> int:
    with open(path, "w") as file:
        return file.write(text)


def can_write(path: object) -> str:
    """Opens it for writing, and writes nothing."""
    os.close(os.open(path, os.O_WRONLY))
    return "opened for writing"


def processes() -> list:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def others() -> list:
    """All processes but the program and those who started it, up to the first of the sandbox."""
    own, pid = set(), os.getpid()
    while pid > 1 and pid not in own:
        own.add(pid)
        try:
            pid = int(read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            break
    return [pid for pid in processes() if pid not in own]


def spawned(child: int, reader: int, timeout_s: float) -> tuple:
    """Output and status of a child; its whole group is killed when it has ended, or has taken too long."""
    output, until, status = b"", time.monotonic() + timeout_s, None
    os.set_blocking(reader, False)
    while status is None and time.monotonic() < until:
        if select.select([reader], [], [], 0.02)[0]:
            output += _chunk(reader)
        ended, found = os.waitpid(child, os.WNOHANG)
        status = found if ended else None
    for _ in range(64):
        output += _chunk(reader)
    late = status is None
    for target in (-child, child):
        with contextlib.suppress(OSError):
            os.kill(target, signal.SIGKILL)
    if late:
        status = os.waitpid(child, 0)[1]
    return output[-MAX_OUTPUT:], status, late


def _chunk(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:
        return b""


def run(name: str, program: str, given: dict, timeout_s: float) -> dict:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(reader)
        os.close(writer)
        _become(program, given)
    os.close(writer)
    output, status, late = spawned(child, reader, timeout_s)
    os.close(reader)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {"name": name, "output": output.decode("latin-1"), "signal": killed, "late": late}


def _become(program: str, given: dict) -> None:
    words.update(given)
    try:
        exec(compile(program, "<attempt>", "exec"), globals())
        tell(ended=True)
    except OSError as error:
        tell(refused={"it": errno.errorcode.get(error.errno or 0, type(error).__name__)})
        tell(ended=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    for one in json.loads((Path(__file__).parent / "programs.json").read_text()):
        sys.stdout.write(MARK + json.dumps(run(**one)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
