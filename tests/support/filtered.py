"""Run Python functions and programs under the system call filter, in processes of their own.

A refusal by the filter and one by the kernel look the same. `marked` gives the filter's answers numbers that no kernel uses, so
that a test sees who answered. Functions run as the user nobody: were the filter broken, what they try would still be harmless.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pyseccomp

from sandbox.seccomp import load_filter
from sandbox.seccomp_rules import INSTRUCTION

NOBODY = 65534
PR_SET_NO_NEW_PRIVS = 38
MARKS = {errno.EPERM: 2001, errno.ENOSYS: 2002, errno.EAFNOSUPPORT: 2003, errno.EPROTONOSUPPORT: 2004}
"""What the filter answers in place of each error; the kernel passes on numbers up to 4095."""

_RETURN = 0x06
_libc = ctypes.CDLL(None, use_errno=True)


class Died(Exception):
    """The child ended by a signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"died of signal {signal}")
        self.signal = signal


def marked(program: bytes) -> bytes:
    """The filter, with MARKS in place of its errors."""
    answers = {pyseccomp.ERRNO(error): pyseccomp.ERRNO(mark) for error, mark in MARKS.items()}
    rows = (
        (code, if_true, if_false, answers.get(constant, constant) if code == _RETURN else constant)
        for code, if_true, if_false, constant in INSTRUCTION.iter_unpack(program)
    )
    return b"".join(INSTRUCTION.pack(*row) for row in rows)


def no_new_privs() -> None:
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


def syscall(number: int, *arguments: int) -> int:
    """Make a call by its number; return 0 or the errno."""
    words = [ctypes.c_ulong(argument) for argument in arguments]
    ctypes.set_errno(0)
    return ctypes.get_errno() if _libc.syscall(ctypes.c_long(number), *words) == -1 else 0


def in_child(work: Callable[[], object], program: bytes | None) -> object:
    """What `work` returns, by way of JSON, in a forked child under the filter. Raises AssertionError or Died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with open(writer, "w") as answer:
            try:
                give_up_privileges()
                if program is not None:
                    no_new_privs()
                    load_filter(program)
                json.dump(["returned", work()], answer)
            except BaseException:
                json.dump(["raised", traceback.format_exc()], answer)
            answer.flush()
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Died(os.WTERMSIG(status))
    outcome, value = json.loads(text)
    assert outcome == "returned", value
    return value


def give_up_privileges() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def run_program(
    argv: Sequence[str], program: bytes, directory: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end under the filter, in `directory`, with its HOME there."""

    def confine() -> None:
        no_new_privs()
        load_filter(program)

    return subprocess.run(
        argv,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=confine,
        check=False,
    )
