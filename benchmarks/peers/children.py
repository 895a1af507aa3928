"""Processes that the harness starts: begun in a session of their own, waited for, measured, and ended by pid, never by name."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0
LOOK_S = 0.005
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Daemons that our children leave behind become our children: see prctl(2), PR_SET_CHILD_SUBREAPER."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = READY_S) -> None:
    """Look until `condition` holds; raises TimeoutError. An exception of the condition counts as not yet."""
    until = time.monotonic() + limit_s
    while True:
        problem: Exception | None = None
        try:
            if condition():
                return
        except Exception as error:
            problem = error
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come within {limit_s:g} s") from problem
        time.sleep(LOOK_S)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bin_of(program: str) -> str:
    """A program of the virtual environment that this runs in."""
    return str(Path(sys.executable).parent / program)


class Child:
    """A long-running process, with its output in a file."""

    def __init__(self, argv: list[str], log: Path, *, user: str = "", environment: dict[str, str] | None = None) -> None:
        account: dict[str, Any] = {}
        if user and os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                **account,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, condition: Callable[[], Any], what: str, limit_s: float = READY_S) -> None:
        """As the function of this name, but an end of the process is an error at once, with the tail of its output."""

        def alive_and_well() -> bool:
            return not self.running or bool(condition())

        wait_until(alive_and_well, what, limit_s)
        if not self.running:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}:\n{tail}")

    def said(self, text: str, times: int = 1) -> bool:
        return self.log.read_text(errors="replace").count(text) >= times

    def kill(self) -> None:
        """SIGKILL to it and all its descendants, as a crash."""
        kill([*descendants(self.pid), self.pid])
        self._process.wait()

    def kill_alone(self) -> None:
        """SIGKILL to it only."""
        self._process.kill()
        self._process.wait()

    def stop(self, number: int = signal.SIGTERM, grace_s: float = 5.0) -> None:
        """A signal, then after the grace SIGKILL; what it leaves behind is killed too."""
        left = descendants(self.pid)
        if self.running:
            self._process.send_signal(number)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                left = descendants(self.pid)
                self._process.kill()
                self._process.wait()
        kill(left)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, deepest last."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(entry)
            if parent:
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def kill(pids: Iterable[int]) -> None:
    """SIGKILL each, and wait until it has ended. Only for descendants of this process: their pids cannot be given to others
    before somebody here has waited for them."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def reap() -> None:
    """Take the exit of every orphan that was adopted."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory, where what processes share is counted once (Pss of proc_pid_smaps(5))."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
