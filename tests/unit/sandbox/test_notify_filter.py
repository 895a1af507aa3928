"""A supervised filter: what it shows, and that the supervisor's answer is the one that the kernel would give."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pyseccomp
import pytest

from sandbox.notify import program_for
from sandbox.notify_calls import FILES, LOOKS
from sandbox.notify_filter import CALL, NOTIFY, Machine, Watched, supervised
from sandbox.seccomp import compile_filter
from sandbox.syscalls import DENIABLE, OPTIONAL
from tests.support.seccomp_machine import X86, X86_64, known_calls, number_of, policy, run

KILL = 0x80000000
ARGUMENTS = (
    (0,) * 6,
    (1,) * 6,
    (0x10000000,) * 6,
    (2, 2, 0o4755, 0, 0, 0),
    (38, 5, 0, 0, 0, 0),
    (0, 0x5412, 0, 0, 0, 0),
    (0, 0o100, 0o4755, 0, 0, 0),
    (0, 0, 0o100, 0o4755, 0, 0),
    (0, 0, 0, 0, 1 << 40, 16),
    ((1 << 64) - 1,) * 6,
)


@pytest.fixture(scope="module")
def program() -> bytes:
    return compile_filter()


def call(number: int, arguments: tuple[int, ...], architecture: int = X86_64) -> bytes:
    return CALL.pack(number, architecture, 0, *arguments)


def refusal(action: int) -> int:
    return 0 if action == pyseccomp.ALLOW else action & 0xFFFF


def test_the_machine_answers_as_the_policy_says(program: bytes) -> None:
    machine = Machine(program)
    for name, number in known_calls().items():
        for arguments in ARGUMENTS:
            assert machine.errno(call(number, arguments)) == refusal(policy(name, arguments)), (name, arguments)


def test_what_kills_is_never_let_through(program: bytes) -> None:
    assert Machine(program).errno(call(0, ARGUMENTS[0], X86)) == errno.EPERM
    for group in ("refused", "files", "record"):
        assert run(program_for(program, group), 0, ARGUMENTS[0], X86) == KILL


@pytest.mark.parametrize("group", ["refused", "files", "record"])
def test_refusals_and_the_calls_of_the_group_are_shown_and_nothing_else_changes(program: bytes, group: str) -> None:
    shown = {"connect", "bind"} | ({*FILES} if group != "refused" else set()) | ({*LOOKS} if group == "record" else set())
    program_of_group = program_for(program, group)  # type: ignore[arg-type]
    for name, number in known_calls().items():
        for arguments in ARGUMENTS:
            plain = policy(name, arguments)
            refused = refusal(plain) in (errno.EPERM, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
            watched = plain == pyseccomp.ALLOW and (name in shown or (name == "sendto" and arguments[4] != 0))
            expected = NOTIFY if refused or watched else plain
            assert run(program_of_group, number, arguments) == expected, (name, arguments)


def test_a_child_can_still_give_its_listener_away(program: bytes) -> None:
    for group in ("refused", "files", "record"):
        for name in ("sendmsg", "close", "prctl", "rt_sigprocmask", "clone", "wait4"):
            assert run(program_for(program, group), number_of(name), ARGUMENTS[0]) == pyseccomp.ALLOW


@pytest.mark.parametrize(
    ("allow", "deny", "name", "error"),
    [
        (OPTIONAL, (), "ptrace", 0),
        ((), OPTIONAL, "ptrace", errno.EPERM),
        ((), DENIABLE, "listen", errno.EPERM),
    ],
)
def test_groups_that_a_profile_grants_or_denies(allow: Iterable[str], deny: Iterable[str], name: str, error: int) -> None:
    program = compile_filter(frozenset(allow), frozenset(deny))
    machine = Machine(program)
    assert machine.errno(call(number_of(name), ARGUMENTS[0])) == error
    for number in known_calls().values():
        for arguments in ARGUMENTS:
            assert machine.action(call(number, arguments)) == run(program, number, arguments)
    shown = run(program_for(program, "refused"), number_of(name), ARGUMENTS[0])
    assert shown == (NOTIFY if error else pyseccomp.ALLOW)


def test_off_is_the_filter_itself(program: bytes) -> None:
    assert program_for(program, "off") == program


def test_a_high_half_of_a_pointer_counts() -> None:
    allow = bytes.fromhex("0600000000 00ff7f".replace(" ", ""))
    made = supervised(allow, [Watched(44, 4), Watched(7)])
    for value, action in ((0, pyseccomp.ALLOW), (1, NOTIFY), (1 << 32, NOTIFY), (1 << 63, NOTIFY)):
        assert run(made, 44, (0, 0, 0, 0, value, 0)) == action
    assert run(made, 7) == NOTIFY
    assert run(made, 8, (1,) * 6) == pyseccomp.ALLOW


def test_the_machine_knows_no_other_instruction() -> None:
    with pytest.raises(ValueError, match="0x87"):
        Machine(bytes.fromhex("8700000000000000")).action(call(0, ARGUMENTS[0]))
