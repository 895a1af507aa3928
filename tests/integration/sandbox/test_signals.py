"""Signals reach the whole of a command, at any time; a terminal is the sandbox's own, with job control."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from collections.abc import Iterator

import pytest

from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from tests.support.sandbox import TIMEOUT_S, Maker, line_of

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
AT_ONCE = 100
WAITS = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("on", flush=True)
signal.pause()
"""


async def test_a_signal_just_after_the_start_is_never_lost(spawner: Spawner) -> None:
    """PID 1 loses what it has no handler for (pid_namespaces(7))."""
    spec = SandboxSpec(argv=("sleep", "1000"), env=ENV, init=True)
    for _ in range(AT_ONCE):
        sandbox = await spawner.spawn(spec, {})
        sandbox.signal(signal.SIGTERM)
        assert (await sandbox.wait()).code == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_what_a_shell_waits_for(by: Maker, number: signal.Signals) -> None:
    """What the shell waits for says that it is on: a shell that is about to start it keeps a SIGINT until it has ended."""
    with by.start("run", "--", "sh", "-c", f"python3 -c '{WAITS}'; echo not reached") as process:
        assert line_of(process.stdout) == "on"
        process.send_signal(number)
        try:
            assert process.wait(TIMEOUT_S) == 128 + number
        finally:
            process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == ""


class Screen:
    """A person at a terminal in which `python -m sandbox` runs."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.descriptor = descriptor
        self.shown = ""

    def until(self, pattern: str) -> str:
        """Read on until the pattern is shown; gives all that was shown up to there, which is then forgotten."""
        while not (match := re.search(pattern, self.shown)):
            assert select.select([self.descriptor], [], [], TIMEOUT_S)[0], f"{pattern} does not come after:\n{self.shown}"
            try:
                text = os.read(self.descriptor, 4096)
            except OSError:  # nobody has it open any more
                text = b""
            assert text, f"it ended without {pattern}:\n{self.shown}"
            self.shown += text.decode()
        before, self.shown = self.shown[: match.end()], self.shown[match.end() :]
        return before

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def end(self) -> int:
        with contextlib.suppress(OSError):
            while os.read(self.descriptor, 4096):
                pass
        self.pid, status = 0, os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def screen(by: Maker, *command: str, read: str = "/usr") -> Iterator[Screen]:
    options = ("--optional", "cgroup", "--read", read, "--env", "PS1=ready> ")
    argv = [*by.interpreter, "-m", "sandbox", "run", *options, "--", *command]
    pid, descriptor = pty.fork()
    if pid == 0:
        try:
            os.chdir(by.home)
            os.execvpe(argv[0], argv, by.environment())
        finally:
            os._exit(1)
    shown = Screen(pid, descriptor)
    try:
        yield shown
    finally:
        os.close(descriptor)
        if shown.pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_ctrl_c_ends_what_runs_and_all_it_waits_for(by: Maker) -> None:
    with screen(by, "bash", "-c", f"python3 -c '{WAITS}'; echo not reached") as shown:
        shown.until("on\r\n")
        shown.type("\x03")
        assert shown.end() == 128 + signal.SIGINT
    assert "not reached" not in shown.shown


MINDS = """
import subprocess
try:
    print("started", flush=True)
    subprocess.run(["sleep", "1000"])
except KeyboardInterrupt:
    print("minded")
"""
TELLS = """
import os, signal
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"continued\\n"))
print("started", flush=True)
while True:
    signal.pause()
"""


def test_ctrl_c_goes_to_a_program_that_minds_it(by: Maker) -> None:
    with screen(by, "python3", "-c", MINDS) as shown:
        shown.until("started\r\n")
        shown.type("\x03")
        shown.until("minded\r\n")
        assert shown.end() == 0


def test_an_interactive_shell_has_job_control(by: Maker) -> None:
    (by.home / "tells.py").write_text(TELLS)
    with screen(by, "bash", "--norc", "-i", read=str(by.home / "tells.py")) as shown:
        before = shown.until("ready> ")
        assert "no job control" not in before
        shown.type(f"python3 {by.home}/tells.py\n")
        shown.until("started\r\n")
        shown.type("\x1a")
        shown.until("(?s)Stopped.*ready> ")
        shown.type("jobs; fg\n")
        shown.until("(?s)Stopped.*continued\r\n")
        shown.type("\x03")
        shown.until("(?s)KeyboardInterrupt.*ready> ")
        shown.type("echo co''de $?; exit 5\n")
        shown.until("code 130")
        assert shown.end() == 5


def test_the_terminal_is_the_sandboxes_own_and_of_the_same_size(by: Maker) -> None:
    with screen(by, "bash", "--norc", "-i") as shown:
        shown.until("ready> ")
        fcntl.ioctl(shown.descriptor, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
        shown.type("trap 'stty size' WINCH; while [ \"$(stty size)\" != '33 77' ]; do :; done; echo re''sized\n")
        shown.until("resized")
        outer = os.readlink(f"/proc/{shown.pid}/fd/0")
        shown.type("echo de''vice $(stat -L -c %t:%T /proc/self/fd/0) .\n")
        device = os.stat(outer).st_rdev
        assert f"device {os.major(device):x}:{os.minor(device):x} " not in shown.until(r"device \S+ \.")
        shown.type("exit\n")
        assert shown.end() == 0


def test_the_users_terminal_is_given_back_as_it_was(by: Maker) -> None:
    with screen(by, "true") as shown:
        before = termios.tcgetattr(shown.descriptor)
        assert shown.end() == 0
        assert termios.tcgetattr(shown.descriptor)[:4] == before[:4]


def test_a_large_paste_does_not_hang(by: Maker) -> None:
    with screen(by, "sh", "-c", "stty raw -echo; echo started; head -c 50000 | wc -c") as shown:
        shown.until("started")
        written = 0
        os.set_blocking(shown.descriptor, False)
        while written < 50_000:
            select.select([], [shown.descriptor], [], TIMEOUT_S)
            with contextlib.suppress(BlockingIOError):
                written += os.write(shown.descriptor, b"x" * min(1000, 50_000 - written))
        os.set_blocking(shown.descriptor, True)
        shown.until("50000")
        assert shown.end() == 0
