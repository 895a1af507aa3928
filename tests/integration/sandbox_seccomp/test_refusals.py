"""What the kernel itself answers under the filter, call by call."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import stat
from concurrent.futures.thread import ThreadPoolExecutor
from pathlib import Path

import pyseccomp
import pytest

from sandbox.errors import SandboxError
from sandbox.seccomp import load_filter
from tests.support.filtered import MARKS, Died, in_child, no_new_privs, syscall
from tests.support.seccomp_machine import ARGUMENT_MAX, known_calls, number_of, policy

ERRNO = pyseccomp.ERRNO(0)
HIGH = 1 << 32
EPERM, ENOSYS = MARKS[errno.EPERM], MARKS[errno.ENOSYS]
NO_FAMILY, NO_PROTOCOL = MARKS[errno.EAFNOSUPPORT], MARKS[errno.EPROTONOSUPPORT]
NO_ARGUMENT = (ARGUMENT_MAX,) * 6
"""No address, no descriptor, no process and no known flag: a call that does reach the kernel does nothing."""

X32_BIT = 0x40000000
DOES_NOT_RETURN = {"exit", "exit_group", "pause", "rt_sigreturn", "fork", "vfork"}
TRAMPOLINES = {335, 336} if platform.machine() == "x86_64" else set()
"""uretprobe and uprobe: Linux 6.14 and later shows them to no filter, and kills whoever calls them on his own account."""


def test_every_call_of_the_kernel_is_answered_by_the_tables(marked_program: bytes) -> None:
    """All numbers up to 600, on the kernel: the filter's answer where the tables refuse, never one where they allow."""
    names = {number: name for name, number in known_calls().items()}
    numbers = [number for number in range(600) if names.get(number) not in DOES_NOT_RETURN and number not in TRAMPOLINES]
    answers = in_child(lambda: [syscall(number, *NO_ARGUMENT) for number in numbers], marked_program)
    assert isinstance(answers, list)
    wrong = {}
    for number, answer in zip(numbers, answers, strict=True):
        name = names.get(number, "newer than the tables")
        action = policy(name, NO_ARGUMENT)
        expected = 0 if action == pyseccomp.ALLOW else MARKS[action - ERRNO]
        if (answer if answer in MARKS.values() else 0) != expected:
            wrong[name, number] = (answer, expected)
    assert wrong == {}


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("unshare", (0,), EPERM),
        ("unshare", (0x10000000,), EPERM),
        ("setns", (-1, 0), EPERM),
        ("clone3", (0, 0), ENOSYS),
        ("clone", (0x10000000 | signal.SIGCHLD, 0, 0, 0, 0), EPERM),
        ("clone", (0x10000000 | HIGH | signal.SIGCHLD, 0, 0, 0, 0), EPERM),
        ("clone", (0x02000000 | signal.SIGCHLD, 0, 0, 0, 0), EPERM),
        ("ptrace", (0, 0, 0, 0), EPERM),
        ("bpf", (0, 0, 0), EPERM),
        ("io_uring_setup", (1, 0), ENOSYS),
        ("keyctl", (0, -3, 0), EPERM),
        ("ioctl", (0, 0x5412, 0), EPERM),
        ("ioctl", (0, 0x5412 | HIGH, 0), EPERM),
        ("ioctl", (0, 0x5412 | 0xDEADBEEF << 32, 0), EPERM),
        ("ioctl", (0, 0x541C | HIGH, 0), EPERM),
        ("ioctl", (0, 0x5423, 0), EPERM),
        ("personality", (0x0400000,), ENOSYS),
        ("personality", (0xFFFFFFFF,), 0),
        ("socket", (16, 3, 0), 0),
        ("socket", (16, 3, 9), NO_PROTOCOL),
        ("socket", (38, 5, 0), NO_FAMILY),
        ("socket", (38 | HIGH, 5, 0), NO_FAMILY),
        ("socket", (40, 1, 0), NO_FAMILY),
        ("socket", (17, 3, 0), NO_FAMILY),
        ("socket", (2, 1, 132), NO_PROTOCOL),
        ("socket", (2, 10, 0), NO_PROTOCOL),
        ("socket", (2, 6, 0), NO_PROTOCOL),
        ("socketpair", (30, 1, 0, 0), NO_FAMILY),
    ],
)
def test_the_kernel_sees_arguments_as_the_filter_does(
    name: str, arguments: tuple[int, ...], answer: int, marked_program: bytes
) -> None:
    assert in_child(lambda: syscall(number_of(name), *arguments), marked_program) == answer


def test_refusals_carry_errors_that_programs_know(program: bytes) -> None:
    calls = {"unshare": errno.EPERM, "clone3": errno.ENOSYS, "open_tree": errno.ENOSYS, "getpid": 0}
    assert in_child(lambda: {name: syscall(number_of(name), 0) for name in calls}, program) == calls


def test_files_become_neither_setuid_nor_devices(marked_program: bytes, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    directory = os.open(tmp_path, os.O_PATH)

    def attempts() -> dict[str, int]:
        def attempt(action: object, *arguments: object) -> int:
            try:
                action(*arguments)  # type: ignore[operator]
            except OSError as error:
                return error.errno or -1
            return 0

        opened = os.open("file", os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=directory)
        os.fchdir(directory)
        return {
            "chmod": attempt(os.chmod, "file", 0o4755),
            "chmod setgid": attempt(os.chmod, "file", 0o2755),
            "fchmod": attempt(os.fchmod, opened, 0o4755),
            "fchmodat": attempt(lambda: os.chmod("file", 0o4755, dir_fd=directory)),
            "open": attempt(os.open, "setuid", os.O_CREAT | os.O_WRONLY, 0o4755),
            "open, exclusive": attempt(os.open, "setuid", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o2755),
            "temporary file": attempt(os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o4755),
            "mknod": attempt(os.mknod, "setuid", stat.S_IFREG | 0o4755),
            "mkdir": attempt(os.mkdir, "setgid", 0o2755),
            "character device": attempt(os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
            "block device": attempt(os.mknod, "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0)),
            "plain chmod": attempt(os.chmod, "file", 0o1640),
            "plain mkdir": attempt(os.mkdir, "directory", 0o777),
            "fifo": attempt(os.mkfifo, "fifo"),
        }

    answers = in_child(attempts, marked_program)
    os.close(directory)
    assert isinstance(answers, dict)
    allowed = {"plain chmod", "plain mkdir", "fifo"}
    assert answers == {name: 0 if name in allowed else EPERM for name in answers}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "fifo", "file"]
    assert (tmp_path / "file").stat().st_mode == stat.S_IFREG | 0o1640


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is an x86-64 thing")
@pytest.mark.parametrize("number", [0, 39, 165, 520])
def test_an_x32_call_kills(number: int, program: bytes) -> None:
    with pytest.raises(Died) as death:
        in_child(lambda: syscall(X32_BIT | number, *NO_ARGUMENT), program)
    assert death.value.signal == signal.SIGSYS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is an x86 thing")
def test_a_32_bit_call_kills(program: bytes) -> None:
    """mov eax, 20; int 0x80; ret: getpid() of i386, with the number that writev() has on x86-64."""

    def call() -> int:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

    with pytest.raises(Died) as death:
        in_child(call, program)
    assert death.value.signal == signal.SIGSYS


def test_the_filter_outlives_a_fork_and_a_thread(program: bytes) -> None:
    def work() -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            in_thread = pool.submit(syscall, number_of("unshare"), 0).result()
        child = os.fork()
        if child == 0:
            os._exit(syscall(number_of("unshare"), 0))
        return [in_thread, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

    assert in_child(work, program) == [errno.EPERM, errno.EPERM]


def test_a_further_filter_cannot_widen_the_first(program: bytes) -> None:
    def work() -> int:
        everything = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        everything.load()
        return syscall(number_of("unshare"), 0)

    assert in_child(work, program) == errno.EPERM


def test_loading_without_no_new_privs_is_an_error(program: bytes) -> None:
    def work() -> list[object]:
        try:
            load_filter(program)
        except SandboxError as error:
            return [error.step, error.errno, error.hint]
        return []

    assert in_child(work, None) == ["seccomp", errno.EACCES, "Set no_new_privs first."]


@pytest.mark.parametrize("damage", [b"", b"\x00" * 8, b"\x06" + b"\x00" * 7 + b"\xff" * 8])
def test_loading_a_damaged_program_is_an_error(damage: bytes) -> None:
    def work() -> list[object]:
        no_new_privs()
        try:
            load_filter(damage)
        except SandboxError as error:
            return [error.step, error.errno]
        return []

    assert in_child(work, None) == ["seccomp", errno.EINVAL]
