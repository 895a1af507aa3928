"""Runs attempts in a jail: those that only look together in one sandbox, the others in one each."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.escape import inside
from tests.escape.attempt import Attempt, BrokenError, Course, Held, Judged, NotApplicableError, Outcome, Verdict, Words
from tests.escape.host import SYSTEM_PYTHON, Host
from tests.escape.jails import Jail

START_S = 40
LAUNCH = Path(__file__).with_name("launch.py")
HOST = {"host_mounts": os.readlink("/proc/self/ns/mnt")}
"""What every program is told: which mount namespace it must not be in."""
NO_GROUPS = "sandbox: cgroup: "
"""So begins what ours says when it refuses to start without the limits."""


class Started(NamedTuple):
    """What came of one sandbox."""

    code: int
    output: str
    errors: str


def run(jail: Jail, attempts: Iterable[Attempt]) -> dict[str, Judged | BaseException]:
    """Each attempt's verdict, or what kept it from having one."""
    found: dict[str, Judged | BaseException] = {}
    together = [attempt for attempt in attempts if not attempt.alone]
    for group in [together, *([attempt] for attempt in attempts if attempt.alone)]:
        if group:
            with jail.host() as host:
                found |= _run_group(jail, host, group)
    return found


def _run_group(jail: Jail, host: Host, group: Sequence[Attempt]) -> dict[str, Judged | BaseException]:
    found: dict[str, Judged | BaseException] = {}
    courses: dict[str, tuple[Attempt, Course, Words]] = {}
    for attempt in group:
        course = attempt.course(host)
        try:
            courses[attempt.name] = (attempt, course, next(course))
        except NotApplicableError as why:
            found[attempt.name] = Judged(Verdict.NOT_APPLICABLE, str(why))
    if not courses:
        return found
    started = _start(jail, host, [(attempt, words) for attempt, _, words in courses.values()])
    outcomes = dict(_outcomes(started.output))
    for name, (attempt, course, _) in courses.items():
        found[name] = _judge(attempt, course, outcomes.get(name), started)
    return found


def _judge(attempt: Attempt, course: Course, outcome: Outcome | None, started: Started) -> Judged | BaseException:
    if outcome is None and attempt.held is Held.BY_GROUPS and started.errors.startswith(NO_GROUPS):
        return Judged(Verdict.NOT_APPLICABLE, "this host has no control groups for this user, and it does not start without")
    try:
        # One that has brought the whole sandbox down has no outcome: the host's side is looked at all the same.
        course.send(outcome or Outcome({}, {}, started.output[-2000:] + started.errors[-2000:], ended=False, late=False))
    except StopIteration as end:
        verdict = end.value
        return verdict if isinstance(verdict, Judged) else Judged(verdict)
    except NotApplicableError as why:
        return Judged(Verdict.NOT_APPLICABLE, str(why))
    except (AssertionError, OSError, KeyError) as error:
        error.add_note(f"exit code {started.code}; {started.errors[-1500:]}")
        return error
    raise BrokenError(f"{attempt.name} yields twice")


def _start(jail: Jail, host: Host, given: list[tuple[Attempt, Words]]) -> Started:
    place = host.workspace / ".attempts"
    place.mkdir()
    shutil.copy(inside.__file__, place / "inside.py")
    programs = [
        {"name": attempt.name, "program": attempt.program, "given": {**words, **HOST}, "timeout_s": attempt.timeout_s}
        for attempt, words in given
    ]
    (place / "programs.json").write_text(json.dumps(programs))
    for path in (place, *place.iterdir()):
        path.chmod(0o755)
        host.own(path)
    held = given[0][0].held
    argv = jail.command(host, [SYSTEM_PYTHON, "-I", "-S", str(place / "inside.py")], held)
    command = [SYSTEM_PYTHON, "-I", "-S", str(LAUNCH), host.session_key, *jail.become(host), *argv]
    timeout_s = START_S + sum(attempt.timeout_s for attempt, _ in given)
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(_terminal()) if any(attempt.terminal for attempt, _ in given) else None
        return _await(command, jail.environment(host) | host.environment, host, terminal, timeout_s)


def _await(command: list[str], environment: dict[str, str], host: Host, terminal: _Terminal | None, timeout_s: float) -> Started:
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if terminal:
        streams = dict.fromkeys(streams, terminal.inside)
        # The caller's session leader, as a shell is, whose child is the sandbox.
        command = [sys.executable, "-I", "-c", _SESSION, *command]
    process = subprocess.Popen(
        command, env=environment, cwd=host.workspace, pass_fds=host.inherited, start_new_session=not terminal, **streams
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
    if terminal:
        host.typed = terminal.typed()
        return Started(process.returncode, terminal.printed(), "")
    return Started(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


_SESSION = """
import fcntl, os, signal, subprocess, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(subprocess.run(sys.argv[1:], close_fds=False).returncode)
"""


class _Terminal:
    """The one that the caller of a sandbox sits at."""

    def __init__(self) -> None:
        self._outside, self.inside = pty.openpty()
        modes = termios.tcgetattr(self.inside)
        modes[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.inside, termios.TCSANOW, modes)
        self._printed = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self._outside, 65536):
                self._printed += chunk

    def typed(self) -> bytes:
        """What is there to be read by whoever has the terminal next."""
        modes = termios.tcgetattr(self.inside)
        modes[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.inside, termios.TCSANOW, modes)
        (count,) = struct.unpack("i", fcntl.ioctl(self.inside, termios.FIONREAD, b"\0" * 4))
        return os.read(self.inside, count) if count else b""

    def printed(self) -> str:
        """All that came out; ends the terminal."""
        os.close(self.inside)
        self._reader.join()
        os.close(self._outside)
        return self._printed.decode(errors="replace")


@contextlib.contextmanager
def _terminal() -> Iterator[_Terminal]:
    yield _Terminal()


def _outcomes(output: str) -> Iterator[tuple[str, Outcome]]:
    for line in output.splitlines():
        if line.startswith(inside.MARK):
            with contextlib.suppress(ValueError):
                said = json.loads(line.removeprefix(inside.MARK))
                yield said["name"], _outcome(said)


def _outcome(said: dict[str, Any]) -> Outcome:
    did: dict[str, Any] = {}
    refused: dict[str, str] = {}
    ended = said["signal"] == signal.SIGSYS
    if ended:
        refused["it"] = "SIGSYS"
    for line in said["output"].splitlines():
        if line.startswith(inside.MARK):
            with contextlib.suppress(ValueError):
                facts = json.loads(line.removeprefix(inside.MARK))
                did |= facts.get("did", {})
                refused |= facts.get("refused", {})
                ended = ended or facts.get("ended", False)
    return Outcome(did, refused, said["output"], ended, said["late"])
