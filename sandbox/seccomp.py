"""The system call filter: compiled once to BPF by libseccomp, then loaded into each sandbox without it.

    program = compile_filter()          # in the parent, before it forks
    ...
    load_filter(program)                # in the child, which has set no_new_privs

The policy is in `syscalls`. Source: seccomp(2), linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import lru_cache, partial

from sandbox.elsewhere import elsewhere
from sandbox.errors import SandboxError

INSTRUCTION_BYTES = 8
"""The size of struct sock_filter."""

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2


_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong)
_prctl.restype = ctypes.c_int


def compile_filter(allow: frozenset[str] = frozenset(), deny: frozenset[str] = frozenset()) -> bytes:
    """The filter for this machine's architecture, as an array of struct sock_filter.

    `allow` and `deny` name groups of `syscalls`: OPTIONAL ones to be granted, and such as are not.
    Calls of a foreign architecture (i386 and x32 on x86-64, arm on aarch64) kill the process.
    Raises SandboxError when libseccomp is missing or does not take a rule.
    """
    try:
        # A process that only loads filters needs no libseccomp, and looking for it starts other processes.
        from sandbox.seccomp_rules import compile_rules
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(
            f"libseccomp cannot be used: {error}.", step="seccomp", hint="Install the package libseccomp2."
        ) from error
    try:
        return compile_rules(allow=allow, deny=deny)
    except OSError as error:
        raise SandboxError(f"libseccomp: {error.strerror}.", step="seccomp", errno=error.errno or 0) from error


@lru_cache(maxsize=64)
def compile_elsewhere(allow: frozenset[str] = frozenset(), deny: frozenset[str] = frozenset()) -> bytes:
    """The same, once for each policy, and without what libseccomp and its import leave behind, which every fork would copy."""
    return elsewhere(partial(compile_filter, allow, deny))


def compile_tier_filter(abi: int) -> bytes:
    """What is loaded besides where there are no namespaces, but Landlock of this version. Raises SandboxError."""
    try:
        from sandbox import tier_rules

        return tier_rules.compile_rules(abi)
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(f"libseccomp: {error}.", step="seccomp", hint="Install the package libseccomp2.") from error


def load_filter(program: bytes) -> None:
    """Put this thread, and all that it starts from now on, under the filter; nothing can take it off again.

    The caller must have set no_new_privs. `program` is used where it lies, not copied, and no lock is taken, so that this can run
    in a forked child. Raises SandboxError with the kernel's errno; the process is then unfiltered and must not go on.
    """
    address = ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p).value
    header = struct.pack("@HP", len(program) // INSTRUCTION_BYTES, address)  # struct sock_fprog
    if _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        number = ctypes.get_errno()
        hint = "Set no_new_privs first." if number == errno.EACCES else ""
        raise SandboxError(f"the kernel did not take the filter: {os.strerror(number)}.", step="seccomp", errno=number, hint=hint)
