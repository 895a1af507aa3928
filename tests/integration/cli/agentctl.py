"""agentctl as people and programs run it: behind pipes, in a terminal, and with tasks that wait for the test."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).parent / "agentctl")
CTRL_C = b"\x03"
CHUNK_BYTES = 65536


@dataclass
class Done:
    code: int
    out: str
    err: str


class Agentctl:
    """Runs agentctl against one socket, without any configuration of the machine."""

    def __init__(self, socket: Path, directory: Path) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "AGENT", "PYTHON", "NO_COLOR"))}
        self.environment = {**kept, "AGENT_SUPERVISOR_SOCKET": str(socket), "HOME": str(directory), "TERM": "xterm"}

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        return subprocess.Popen([PROGRAM, *arguments], env=self.environment, cwd=self.directory, **streams)

    def bytes(self, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit code, standard output and standard error."""
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(stdin)
        return process.returncode, out, err

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        code, out, err = self.bytes(*arguments, stdin=stdin)
        return Done(code, out.decode(), err.decode())

    def documents(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> list[Any]:
        """What `--json` gives: every line is a document."""
        done = self(*arguments, "--json", stdin=stdin) if "--" not in arguments else self("--json", *arguments, stdin=stdin)
        assert (done.code, done.err) == (code, ""), done
        assert done.out.endswith("\n")
        return [json.loads(line) for line in done.out[:-1].split("\n")]

    def document(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> Any:
        (only,) = self.documents(*arguments, code=code, stdin=stdin)
        return only

    def submit(self, *arguments: str, stdin: bytes = b"") -> list[str]:
        """The ids of what was submitted."""
        done = self("submit", *arguments, stdin=stdin)
        assert done.code == 0, done
        return done.out.splitlines()

    def ended(self, *arguments: str) -> str:
        """The id of a task that was submitted and has ended."""
        done = self("--json", "submit", "--wait", *arguments)
        (task,) = json.loads(done.out)["tasks"]
        return str(task["id"])

    def terminal(self, *arguments: str, columns: int = 100, **environment: str) -> Terminal:
        return Terminal(self, arguments, columns, environment)


class Terminal:
    """A process whose input, output and errors are a terminal, which is its controlling one."""

    def __init__(self, agentctl: Agentctl, arguments: tuple[str, ...], columns: int, environment: dict[str, str]) -> None:
        self.text = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**agentctl.environment, **environment},
            cwd=agentctl.directory,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def read_until(self, text: str) -> None:
        while text not in self.text:
            assert self._read(), f"ended without {text!r}: {self.text!r}"

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def finish(self) -> tuple[int, str]:
        """The exit code and all that was shown, with line feeds as line ends."""
        while self._read():
            pass
        os.close(self._ours)
        return self._process.wait(), self.text.replace("\r\n", "\n")

    def _read(self) -> bool:
        try:
            data = os.read(self._ours, CHUNK_BYTES)
        except OSError:  # EIO: the last process has closed it
            return False
        self.text += data.decode("utf-8", "surrogateescape")
        return bool(data)


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> list[bytes]:
    """The lines before the one that is wanted."""
    assert process.stdout is not None
    lines: list[bytes] = []
    while (line := process.stdout.readline()) != wanted:
        assert line, f"ended after {lines}"
        lines.append(line)
    return lines


class Gate:
    """Tasks that run until the test lets them: they read from a pipe in their workspace, which blocks on both sides."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        workspace.mkdir()
        self._pipe = workspace / "gate"
        os.mkfifo(self._pipe)

    def task(self, *, before: str = "true", after: str = "true") -> list[str]:
        """Arguments of a submit."""
        return ["--workspace", str(self.workspace), "--", "sh", "-c", f"{before}; cat gate >/dev/null; {after}"]

    def open(self) -> None:
        """Waits until a task stands before it."""
        self._pipe.write_bytes(b"")
