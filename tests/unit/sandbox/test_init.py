"""The small PID 1, run as a process that adopts orphans as PID 1 does."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

PR_SET_CHILD_SUBREAPER = 36
START = f"""
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl({PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0)
from sandbox import init
leaked = os.open("/dev/null", os.O_RDONLY)
"""

Processes = list[subprocess.Popen[str]]


@pytest.fixture
def started() -> Iterator[Processes]:
    processes: Processes = []
    yield processes
    for process in processes:
        with process:
            process.kill()


def start(processes: Processes, code: str, before: str = "") -> subprocess.Popen[str]:
    """Start a process that stays behind as init, while `code` runs in its child, the program."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{START}{before}\ninit.fork_program()\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    return process


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_it_ends_as_the_program_ended(started: Processes, code: int) -> None:
    assert start(started, f"os._exit({code})").wait(60) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_programs_death_by_a_signal_is_128_and_its_number(started: Processes, number: signal.Signals) -> None:
    assert start(started, f"os.kill(os.getpid(), {int(number)})").wait(60) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_passed_on(started: Processes, number: signal.Signals) -> None:
    # A signal just before a call that blocks would be handled only when that returns: so none that blocks for long.
    wait = "while True: time.sleep(0.01)"
    code = f"signal.signal({int(number)}, lambda *_: os._exit(40 + {int(number)}))\nprint('on', flush=True)\n{wait}"
    process = start(started, code)
    assert line_of(process) == "on"
    process.send_signal(number)
    assert process.wait(60) == 40 + number


def test_a_signal_just_after_it_let_go_of_its_descriptors_is_passed_on(started: Processes) -> None:
    """The fork server says that a sandbox runs when PID 1 has closed its end of a socket: a signal may come at once."""
    then_signal = """
close = os.closerange
def close_and_be_signalled(low, high):
    close(low, high)
    os.kill(os.getpid(), signal.SIGTERM)
os.closerange = close_and_be_signalled
"""
    process = start(started, "signal.pause()", before=then_signal)
    assert process.wait(60) == 128 + signal.SIGTERM


def test_orphans_are_reaped_and_do_not_end_it(started: Processes) -> None:
    """The program starts a child whose own child outlives it; that orphan's end must not be taken for the program's."""
    process = start(
        started,
        """
ours, theirs = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(9)
    os._exit(8)
os.wait()
init_pid = os.getppid()
children = lambda: open(f"/proc/{init_pid}/task/{init_pid}/children").read().split()
while len(children()) < 2:  # the orphan comes to init
    pass
os.close(theirs)
while len(children()) > 1:  # init reaps it
    pass
os._exit(5)
""",
    )
    assert process.wait(60) == 5


def test_the_program_keeps_its_descriptors(started: Processes) -> None:
    process = start(started, "print(os.fstat(leaked).st_rdev > 0, flush=True)")
    assert line_of(process) == "True"
    assert process.wait(60) == 0
