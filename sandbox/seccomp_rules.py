"""From the tables of `syscalls` to BPF, by libseccomp.

Two filters are joined into one program, because a filter of libseccomp cannot both refuse by default and allow a call "except
with these arguments". The first knows the arguments that are refused; where it would allow a call, the program goes on into the
second, which knows the calls that are allowed. Source: seccomp_rule_add(3), seccomp_attr_set(3), linux/filter.h.
"""

from __future__ import annotations

import errno
import os
import struct

import pyseccomp
from pyseccomp import Arg, SyscallFilter

from sandbox.syscalls import ALLOWED, ALLOWED_WHEN, REFUSED, REFUSED_WHEN, Comparison, Condition

INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, constant."""

_JUMP = 0x05
_RETURN = 0x06
_BINARY_TREE = 2
"""Find a call by bisection instead of one by one: the kernel loads it twice as fast."""

_OPERATORS = {Comparison.EQUAL: pyseccomp.EQ, Comparison.NOT_EQUAL: pyseccomp.NE, Comparison.GREATER: pyseccomp.GT}


def compile_rules() -> bytes:
    """The whole policy as one program. Raises OSError when libseccomp does not take a rule."""
    return join(_export(_argument_rules()), _export(_call_rules()))


def join(first: bytes, second: bytes) -> bytes:
    """A program that runs `first` and, where that allows the call, goes on to `second`."""
    instructions = list(INSTRUCTION.iter_unpack(first))
    for position, (code, _, _, constant) in enumerate(instructions):
        if (code, constant) == (_RETURN, pyseccomp.ALLOW):
            instructions[position] = (_JUMP, 0, 0, len(instructions) - position - 1)
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in instructions) + second


def _argument_rules() -> SyscallFilter:
    rules = _new_filter(pyseccomp.ALLOW)
    for rule in REFUSED_WHEN:
        for name in rule.syscalls:
            _add(rules, pyseccomp.ERRNO(rule.errno), name, rule.conditions)
    return rules


def _call_rules() -> SyscallFilter:
    rules = _new_filter(pyseccomp.ERRNO(errno.ENOSYS))
    for name in (name for names in ALLOWED.values() for name in names):
        _add(rules, pyseccomp.ALLOW, name)
    for name, alternatives in ALLOWED_WHEN.items():
        for condition in alternatives:
            _add(rules, pyseccomp.ALLOW, name, (condition,))
    for name in (name for names in REFUSED.values() for name in names):
        _add(rules, pyseccomp.ERRNO(errno.EPERM), name)
    return rules


def _new_filter(default_action: int) -> SyscallFilter:
    rules = SyscallFilter(default_action)
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    return rules


def _add(rules: SyscallFilter, action: int, name: str, conditions: tuple[Condition, ...] = ()) -> None:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    if number >= 0:  # negative: this architecture does not have the call, or libseccomp is older than it
        rules.add_rule_exactly(action, number, *map(_argument, conditions))


def _argument(condition: Condition) -> Arg:
    if condition.comparison is Comparison.MASKED:
        return Arg(condition.argument, pyseccomp.MASKED_EQ, condition.mask, condition.value)
    return Arg(condition.argument, _OPERATORS[condition.comparison], condition.value)


def _export(rules: SyscallFilter) -> bytes:
    with open(os.memfd_create("filter", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
