"""From the tables of `syscalls` to BPF, by libseccomp.

Two filters are joined into one program, because a filter of libseccomp cannot both refuse by default and allow a call "except
with these arguments". The first knows the arguments that are refused; where it would allow a call, the program goes on into the
second, which knows the calls that are allowed. Source: seccomp_rule_add(3), seccomp_attr_set(3), linux/filter.h.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection
from itertools import chain

import pyseccomp

from sandbox.syscalls import ALLOWED, ALLOWED_WHEN, OPTIONAL, REFUSED, REFUSED_WHEN, Comparison, Condition

INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, constant."""

_JUMP = 0x05
_RETURN = 0x06
_BINARY_TREE = 2
"""Find a call by bisection instead of one by one: the kernel loads it twice as fast."""

_OPERATORS = {Comparison.EQUAL: pyseccomp.EQ, Comparison.NOT_EQUAL: pyseccomp.NE, Comparison.GREATER: pyseccomp.GT}


def compile_rules(architecture: int = pyseccomp.Arch.NATIVE, *, allow: Collection[str] = (), deny: Collection[str] = ()) -> bytes:
    """The whole policy as one program, for this machine or, to look at it, for another `pyseccomp.Arch`.

    `allow` names groups of OPTIONAL to be granted, `deny` groups of either that are not; of a group in both, `deny` counts.
    Raises OSError when libseccomp does not take a rule.
    """
    return join(_argument_rules(architecture).export(), _call_rules(architecture, frozenset(allow) - {*deny}, deny).export())


def join(first: bytes, second: bytes) -> bytes:
    """A program that runs `first` and, where that allows the call, goes on to `second`."""
    instructions = list(INSTRUCTION.iter_unpack(first))
    for position, (code, _, _, constant) in enumerate(instructions):
        if (code, constant) == (_RETURN, pyseccomp.ALLOW):
            instructions[position] = (_JUMP, 0, 0, len(instructions) - position - 1)
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in instructions) + second


class _Filter:
    """A filter of libseccomp for one architecture; calls of any other kill the process."""

    def __init__(self, default_action: int, architecture: int) -> None:
        self._architecture = architecture
        self._rules = pyseccomp.SyscallFilter(default_action)
        self._rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
        self._rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
        if architecture not in (pyseccomp.Arch.NATIVE, pyseccomp.system_arch()):
            self._rules.add_arch(architecture)
            self._rules.remove_arch(pyseccomp.system_arch())

    def add(self, action: int, name: str, conditions: tuple[Condition, ...] = ()) -> None:
        """Answer a call with `action` when all conditions hold; pass over a call that the architecture or libseccomp lacks."""
        if pyseccomp.resolve_syscall(self._architecture, name) >= 0:
            native = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            self._rules.add_rule_exactly(action, native, *map(_comparison, conditions))

    def export(self) -> bytes:
        with open(os.memfd_create("filter", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
            self._rules.export_bpf(file)
            file.seek(0)
            return file.read()


def _argument_rules(architecture: int) -> _Filter:
    rules = _Filter(pyseccomp.ALLOW, architecture)
    for rule in REFUSED_WHEN:
        for name in rule.syscalls:
            rules.add(pyseccomp.ERRNO(rule.errno), name, rule.conditions)
    return rules


def _call_rules(architecture: int, allow: Collection[str], deny: Collection[str]) -> _Filter:
    rules = _Filter(pyseccomp.ERRNO(errno.ENOSYS), architecture)
    granted = set(chain.from_iterable(OPTIONAL[group] for group in allow))
    for group, names in ALLOWED.items():
        for name in names:
            rules.add(pyseccomp.ERRNO(errno.EPERM) if group in deny else pyseccomp.ALLOW, name)
    for name in sorted(granted):
        rules.add(pyseccomp.ALLOW, name)
    for name, alternatives in ALLOWED_WHEN.items():
        for condition in alternatives:
            rules.add(pyseccomp.ALLOW, name, (condition,))
    for name in chain.from_iterable(REFUSED.values()):
        if name not in granted:
            rules.add(pyseccomp.ERRNO(errno.EPERM), name)
    return rules


def _comparison(condition: Condition) -> pyseccomp.Arg:
    if condition.comparison is Comparison.MASKED:
        return pyseccomp.Arg(condition.argument, pyseccomp.MASKED_EQ, condition.mask, condition.value)
    return pyseccomp.Arg(condition.argument, _OPERATORS[condition.comparison], condition.value)
