"""The kernel's side of a system call filter, in Python: runs a BPF program on one call, as linux/net/core/filter.c does.

Beside it stands the same policy read straight from the tables of `sandbox.syscalls`, to hold the compiled program against.
"""

from __future__ import annotations

import errno
import struct
from itertools import chain

import pyseccomp

from sandbox.seccomp_rules import INSTRUCTION
from sandbox.syscalls import ALLOWED, ALLOWED_WHEN, REFUSED, REFUSED_WHEN, Comparison, Condition

X86_64, AARCH64, X86, ARM = pyseccomp.Arch.X86_64, pyseccomp.Arch.AARCH64, pyseccomp.Arch.X86, pyseccomp.Arch.ARM
ARGUMENT_MAX = (1 << 64) - 1

ALLOWED_NAMES = frozenset(chain.from_iterable(ALLOWED.values()))
REFUSED_NAMES = frozenset(chain.from_iterable(REFUSED.values()))

LOAD, RETURN, AND, JUMP = 0x20, 0x06, 0x54, 0x05
JUMPS = {
    0x15: lambda accumulator, constant: accumulator == constant,
    0x25: lambda accumulator, constant: accumulator > constant,
    0x35: lambda accumulator, constant: accumulator >= constant,
    0x45: lambda accumulator, constant: accumulator & constant != 0,
}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), architecture: int = X86_64) -> int:
    """The action that `program` returns for a call, as in the SECCOMP_RET_ constants."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    position = accumulator = 0
    while True:
        code, if_true, if_false, constant = INSTRUCTION.unpack_from(program, position * INSTRUCTION.size)
        position += 1
        if code == RETURN:
            return constant
        if code == LOAD:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == AND:
            accumulator &= constant
        elif code == JUMP:
            position += constant
        else:
            position += if_true if JUMPS[code](accumulator, constant) else if_false


def policy(name: str, arguments: tuple[int, ...] = ()) -> int:
    """The action that the tables give for a call."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    for rule in REFUSED_WHEN:
        if name in rule.syscalls and all(holds(condition, padded) for condition in rule.conditions):
            return pyseccomp.ERRNO(rule.errno)
    if name in ALLOWED_NAMES or any(holds(condition, padded) for condition in ALLOWED_WHEN.get(name, ())):
        return pyseccomp.ALLOW
    return pyseccomp.ERRNO(errno.EPERM if name in REFUSED_NAMES else errno.ENOSYS)


def holds(condition: Condition, arguments: tuple[int, ...]) -> bool:
    argument = arguments[condition.argument]
    match condition.comparison:
        case Comparison.EQUAL:
            return argument == condition.value
        case Comparison.NOT_EQUAL:
            return argument != condition.value
        case Comparison.GREATER:
            return argument > condition.value
        case Comparison.MASKED:
            return argument & condition.mask == condition.value


def number_of(name: str, architecture: int = pyseccomp.Arch.NATIVE) -> int:
    """The number of a call; negative when libseccomp or the architecture does not have it."""
    return pyseccomp.resolve_syscall(architecture, name)


def known_calls(architecture: int = pyseccomp.Arch.NATIVE) -> dict[str, int]:
    """Every call that libseccomp knows for an architecture."""
    calls = {}
    for number in range(1024):
        try:
            calls[pyseccomp.resolve_syscall(architecture, number).decode()] = number
        except ValueError:
            continue
    return calls
