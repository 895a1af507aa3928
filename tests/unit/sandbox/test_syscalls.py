"""The policy's tables, and the program compiled from them, held against each other on an interpreter of BPF."""

from __future__ import annotations

import errno
import stat
import struct
from collections import Counter
from itertools import chain

import pyseccomp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox.seccomp_rules import compile_rules, join
from sandbox.syscalls import ABSENT, ALLOWED, ALLOWED_WHEN, DENIABLE, OPTIONAL, REFUSED, REFUSED_WHEN
from tests.support.seccomp_machine import (
    AARCH64,
    ALLOWED_NAMES,
    ARGUMENT_MAX,
    ARM,
    X86,
    X86_64,
    known_calls,
    number_of,
    policy,
    run,
)

PROGRAMS = {architecture: compile_rules(architecture) for architecture in (X86_64, AARCH64)}
EPERM, ENOSYS = pyseccomp.ERRNO(errno.EPERM), pyseccomp.ERRNO(errno.ENOSYS)
NO_FAMILY, NO_PROTOCOL = pyseccomp.ERRNO(errno.EAFNOSUPPORT), pyseccomp.ERRNO(errno.EPROTONOSUPPORT)
ALLOW, KILL = pyseccomp.ALLOW, pyseccomp.KILL_PROCESS
HIGH = 1 << 32
X32_BIT = 0x40000000

MUST_BE_REFUSED = """
    mount umount2 pivot_root chroot swapon swapoff reboot kexec_load kexec_file_load init_module finit_module delete_module bpf
    perf_event_open userfaultfd keyctl add_key request_key ptrace process_vm_readv process_vm_writev kcmp open_by_handle_at
    name_to_handle_at setns unshare acct quotactl quotactl_fd syslog iopl ioperm settimeofday clock_settime adjtimex clock_adjtime
    sethostname setdomainname vhangup lookup_dcookie memfd_secret pidfd_getfd process_madvise modify_ldt fanotify_init
"""
MUST_BE_ABSENT = """
    clone3 openat2 io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick
    mount_setattr mbind migrate_pages move_pages nfsservctl uselib
"""
MUST_BE_ALLOWED = """
    read write mmap mprotect brk futex futex_waitv clone fork vfork execve execveat wait4 waitid pidfd_open pidfd_send_signal rseq
    membarrier memfd_create statx getrandom landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp
    set_robust_list epoll_pwait2 eventfd2 inotify_init1 connect bind pkey_mprotect sched_setaffinity prlimit64 copy_file_range
    shmget mq_open timerfd_create signalfd4 close_range renameat2 io_setup personality openat ioctl fchmodat
"""


NEWER_THAN_LIBSECCOMP_2_5 = "mseal cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue"
LISTED = [*chain.from_iterable(chain(ALLOWED.values(), REFUSED.values(), ABSENT.values())), *ALLOWED_WHEN]


def test_every_call_stands_in_one_table_only() -> None:
    assert [name for name, count in Counter(LISTED).items() if count > 1] == []


def test_every_call_that_libseccomp_knows_was_decided_on() -> None:
    assert (known_calls(X86_64).keys() | known_calls(AARCH64).keys()) - set(LISTED) == set()


def test_no_table_holds_a_misspelt_call() -> None:
    assert {name for name in LISTED if number_of(name, X86_64) < 0} <= set(NEWER_THAN_LIBSECCOMP_2_5.split())


def test_argument_rules_are_for_allowed_calls() -> None:
    assert {name for rule in REFUSED_WHEN for name in rule.syscalls} <= ALLOWED_NAMES


def test_groups_that_can_be_granted_are_refused_otherwise_and_those_that_can_be_denied_are_granted() -> None:
    refused = {*chain.from_iterable(chain(REFUSED.values(), ABSENT.values()))}
    assert set(chain.from_iterable(OPTIONAL.values())) <= refused
    assert ALLOWED.keys() >= DENIABLE
    assert not OPTIONAL.keys() & ALLOWED.keys()


@pytest.mark.parametrize("architecture", PROGRAMS)
@pytest.mark.parametrize("group", [*OPTIONAL, *sorted(DENIABLE)])
def test_a_group_changes_the_answers_to_its_own_calls_alone(group: str, architecture: int) -> None:
    allow, deny = ([group], []) if group in OPTIONAL else ([], [group])
    program = compile_rules(architecture, allow=allow, deny=deny)
    names = {number: name for name, number in known_calls(architecture).items()}
    for number in range(1024):
        name = names.get(number, "newer than the tables")
        in_group = name in (*OPTIONAL.get(group, ()), *ALLOWED.get(group, ()))
        # Refused by their arguments, calls of a group are so whatever else is said.
        by_arguments = policy(name) not in (ALLOW, EPERM, ENOSYS)
        expected = (ALLOW if allow else EPERM) if in_group and not by_arguments else policy(name)
        assert run(program, number, (), architecture) == expected, name


def test_what_is_both_granted_and_denied_is_denied() -> None:
    both = compile_rules(X86_64, allow=["debugging"], deny=["debugging"])
    assert both == PROGRAMS[X86_64]


@pytest.mark.parametrize("architecture", PROGRAMS)
@pytest.mark.parametrize(
    ("names", "action"),
    [(MUST_BE_REFUSED, EPERM), (MUST_BE_ABSENT, ENOSYS), (MUST_BE_ALLOWED, ALLOW)],
    ids=["eperm", "enosys", "allow"],
)
def test_calls_are_answered_as_intended(names: str, action: int, architecture: int) -> None:
    numbers = {name: number_of(name, architecture) for name in names.split()}
    answers = {name: run(PROGRAMS[architecture], number, (), architecture) for name, number in numbers.items() if number >= 0}
    assert {name for name, answer in answers.items() if answer != action} == set()


@pytest.mark.parametrize("architecture", PROGRAMS)
def test_every_number_is_answered_as_the_tables_say(architecture: int) -> None:
    names = {number: name for name, number in known_calls(architecture).items()}
    for number in range(1024):
        expected = policy(names.get(number, "newer than the tables"))
        assert run(PROGRAMS[architecture], number, (), architecture) == expected, names.get(number, number)


@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        ("clone", (0x01200011,), ALLOW),  # fork() of glibc
        ("clone", (0x003D0F00,), ALLOW),  # pthread_create() of glibc
        ("clone", (0x10000011,), EPERM),
        ("clone", (0x10000011 | HIGH,), EPERM),
        ("clone", (0x00020000,), EPERM),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x5412 | HIGH), EPERM),
        ("ioctl", (0, 0x541C | ARGUMENT_MAX - (HIGH - 1)), EPERM),
        ("ioctl", (0, 0x5423), EPERM),
        ("ioctl", (0, 0x540E), ALLOW),  # TIOCSCTTY: every program that opens a terminal of its own needs it
        ("ioctl", (0, 0x5413), ALLOW),
        ("personality", (0,), ALLOW),
        ("personality", (0x0040000,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (ARGUMENT_MAX,), ALLOW),
        ("personality", (0x0400000,), ENOSYS),  # READ_IMPLIES_EXEC
        ("personality", (0x0440000,), ENOSYS),
        ("personality", (8,), ENOSYS),
        ("chmod", (0, 0o755), ALLOW),
        ("chmod", (0, 0o1777), ALLOW),
        ("chmod", (0, 0o4755), EPERM),
        ("chmod", (0, 0o2755 | HIGH), EPERM),
        ("fchmod", (0, 0o6755), EPERM),
        ("fchmodat", (0, 0, 0o4000), EPERM),
        ("fchmodat2", (0, 0, 0o4755, 0), EPERM),
        ("creat", (0, 0o4755), EPERM),
        ("mkdir", (0, 0o2755), EPERM),
        ("mkdirat", (0, 0, 0o755), ALLOW),
        ("open", (0, 0o100, 0o644), ALLOW),
        ("open", (0, 0o100, 0o4755), EPERM),
        ("open", (0, 0, 0o4755), ALLOW),  # creates nothing, so the mode is not read
        ("openat", (0, 0, 0o101 | HIGH, 0o2755), EPERM),
        ("openat", (0, 0, 0o20200002, 0o4755), EPERM),
        ("openat", (0, 0, 0o20200102, 0o4755), EPERM),
        ("openat", (0, 0, 0o20200002, 0o600), ALLOW),
        ("mknod", (0, stat.S_IFIFO | 0o600), ALLOW),
        ("mknod", (0, stat.S_IFREG | 0o4755), EPERM),
        ("mknod", (0, stat.S_IFCHR | 0o600), EPERM),
        ("mknodat", (0, 0, stat.S_IFBLK | 0o600), EPERM),
        ("mknodat", (0, 0, stat.S_IFSOCK | 0o600), ALLOW),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (1, 5, 0), ALLOW),
        ("socket", (2, 0o2000001, 6), ALLOW),  # TCP, close on exec
        ("socket", (10, 2, 17), ALLOW),
        ("socket", (2, 2, 1), ALLOW),  # ping without privilege
        ("socket", (16, 3, 0), ALLOW),  # getaddrinfo() of glibc
        ("socket", (16, 3, 9), NO_PROTOCOL),  # NETLINK_AUDIT
        ("socket", (16, 3, HIGH), NO_PROTOCOL),
        ("socket", (0, 1, 0), NO_FAMILY),
        ("socket", (17, 3, 3), NO_FAMILY),
        ("socket", (17 | HIGH, 3, 3), NO_FAMILY),
        ("socket", (38, 5, 0), NO_FAMILY),
        ("socket", (40, 1, 0), NO_FAMILY),
        ("socket", (ARGUMENT_MAX, 1, 0), NO_FAMILY),
        ("socket", (2, 3, 255), NO_PROTOCOL),  # raw
        ("socket", (2, 10, 3), NO_PROTOCOL),  # the old way to a packet socket
        ("socket", (2, 6, 0), NO_PROTOCOL),  # DCCP by its type
        ("socket", (10, 6 | HIGH, 33), NO_PROTOCOL),
        ("socket", (2, 1, 132), NO_PROTOCOL),  # SCTP
        ("socket", (2, 1, 262), NO_PROTOCOL),  # MPTCP
        ("socketpair", (1, 1, 0), ALLOW),
        ("socketpair", (30, 1, 0), NO_FAMILY),
    ],
)  # fmt: skip
@pytest.mark.parametrize("architecture", PROGRAMS)
def test_arguments_decide(name: str, arguments: tuple[int, ...], action: int, architecture: int) -> None:
    number = number_of(name, architecture)
    if number >= 0:
        assert run(PROGRAMS[architecture], number, arguments, architecture) == action


TELLING = sorted(
    {
        value
        for rule in REFUSED_WHEN
        for condition in rule.conditions
        for value in (condition.value, condition.value + 1, condition.value | HIGH, condition.value | 1)
    }
)
ARGUMENT = st.one_of(st.sampled_from(TELLING), st.integers(0, 0o7777), st.integers(0, ARGUMENT_MAX))


@given(
    name=st.sampled_from(sorted({name for rule in REFUSED_WHEN for name in rule.syscalls} | ALLOWED_WHEN.keys())),
    arguments=st.tuples(ARGUMENT, ARGUMENT, ARGUMENT, ARGUMENT),
    architecture=st.sampled_from(sorted(PROGRAMS)),
)
@example(name="openat", arguments=(0, 0, 0o20000100, 0o4000), architecture=X86_64)
def test_the_program_is_the_policy(name: str, arguments: tuple[int, ...], architecture: int) -> None:
    number = number_of(name, architecture)
    if number >= 0:
        assert run(PROGRAMS[architecture], number, arguments, architecture) == policy(name, arguments)


@pytest.mark.parametrize(("architecture", "foreign"), [(X86_64, (X86, AARCH64, 0)), (AARCH64, (ARM, X86_64, 0))])
def test_foreign_calls_kill(architecture: int, foreign: tuple[int, ...]) -> None:
    for number in range(512):
        assert {run(PROGRAMS[architecture], number, (), other) for other in foreign} == {KILL}


def test_x32_calls_kill() -> None:
    assert {run(PROGRAMS[X86_64], X32_BIT | number) for number in range(1024)} == {KILL}


def test_joined_programs_ask_both() -> None:
    def refuse(number: int, error: int) -> bytes:
        rows = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, pyseccomp.ERRNO(error)), (0x06, 0, 0, pyseccomp.ALLOW)]
        return b"".join(struct.pack("=HBBI", *row) for row in rows)

    program = join(refuse(1, 11), join(refuse(2, 22), refuse(1, 33)))
    answers = [run(program, number) for number in (0, 1, 2)]
    assert answers == [pyseccomp.ALLOW, pyseccomp.ERRNO(11), pyseccomp.ERRNO(22)]
