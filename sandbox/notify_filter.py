"""A filter whose refusals, and chosen calls that it allows, are shown to a supervisor before they are answered.

The supervised program is made from a finished one: the supervisor runs the finished one on what the kernel shows it, and so
gives the very answer that the kernel would have given. Registers cannot change meanwhile; memory can, and decides nothing here.
Source: seccomp_unotify(2), linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from typing import NamedTuple

INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, constant."""
CALL = struct.Struct("=IIQ6Q")
"""struct seccomp_data: number, architecture, instruction pointer, arguments."""

ALLOW, NOTIFY, ERRNO, ACTION, DATA = 0x7FFF0000, 0x7FC00000, 0x00050000, 0xFFFF0000, 0x0000FFFF
SHOWN = frozenset({errno.EPERM, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""The answers that are shown. ENOSYS is not: programs look for newer calls all the time, and go on without."""

_LOAD, _AND, _JUMP, _EQUAL, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x06
_GREATER, _AT_LEAST, _ANY_BIT = 0x25, 0x35, 0x45
_NUMBER_AT, _ARGUMENTS_AT = 0, 16


class Watched(NamedTuple):
    """An allowed call that is shown; with `argument`, only where that one is not 0."""

    number: int
    argument: int = -1


def supervised(program: bytes, watched: Iterable[Watched]) -> bytes:
    """The program, with its refusals (SHOWN) and the `watched` among the calls that it allows answered by the supervisor."""
    tail = _tail(watched)
    instructions = list(INSTRUCTION.iter_unpack(program))
    for position, (code, _, _, constant) in enumerate(instructions):
        if code != _RETURN:
            continue
        if constant == ALLOW:
            instructions[position] = (_JUMP, 0, 0, len(instructions) - position - 1)
        elif constant & ACTION == ERRNO and constant & DATA in SHOWN:
            instructions[position] = (_RETURN, 0, 0, NOTIFY)
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in (*instructions, *tail))


def _tail(watched: Iterable[Watched]) -> list[tuple[int, int, int, int]]:
    """What is done with a call that is allowed."""
    rows = [(_LOAD, 0, 0, _NUMBER_AT)]
    for call in watched:
        if call.argument < 0:
            rows += [(_EQUAL, 0, 1, call.number), (_RETURN, 0, 0, NOTIFY)]
            continue
        low = _ARGUMENTS_AT + 8 * call.argument
        rows += [
            (_EQUAL, 0, 6, call.number),
            (_LOAD, 0, 0, low),
            (_EQUAL, 0, 2, 0),
            (_LOAD, 0, 0, low + 4),
            (_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, NOTIFY),
            (_RETURN, 0, 0, ALLOW),
        ]
    return [*rows, (_RETURN, 0, 0, ALLOW)]


class Machine:
    """Runs a filter on a call, as the kernel does; the instructions are those that libseccomp and `supervised` make."""

    def __init__(self, program: bytes) -> None:
        self._instructions = list(INSTRUCTION.iter_unpack(program))

    def action(self, call: bytes) -> int:
        """SECCOMP_RET_* for a struct seccomp_data. Raises ValueError for an instruction that no filter of ours has."""
        position = accumulator = 0
        while True:
            code, if_true, if_false, constant = self._instructions[position]
            position += 1
            if code == _RETURN:
                return int(constant)
            if code == _LOAD:
                (accumulator,) = struct.unpack_from("=I", call, constant)
            elif code == _AND:
                accumulator &= constant
            elif code == _JUMP:
                position += constant
            else:
                position += if_true if _holds(code, accumulator, constant) else if_false

    def errno(self, call: bytes) -> int:
        """What the call is refused with; 0: it is allowed. Anything else that a filter can say is EPERM."""
        action = self.action(call)
        if action == ALLOW:
            return 0
        return action & DATA if action & ACTION == ERRNO else errno.EPERM


def _holds(code: int, accumulator: int, constant: int) -> bool:
    if code == _EQUAL:
        return accumulator == constant
    if code == _GREATER:
        return accumulator > constant
    if code == _AT_LEAST:
        return accumulator >= constant
    if code == _ANY_BIT:
        return accumulator & constant != 0
    raise ValueError(f"no instruction of a filter: {code:#x}")
