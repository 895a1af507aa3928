"""The outside of a sandbox: what attempts find planted there, made for one run and gone with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SYSTEM_PYTHON = "/usr/bin/python3"
VICTIM_S = 120
"""The longest that a victim lives if the test dies."""

VICTIM = """
import ctypes, os, signal, sys, tempfile
signal.alarm(int(sys.argv[1]))
token = sys.stdin.readline().strip().encode()
memory = ctypes.create_string_buffer(token)
held = tempfile.TemporaryFile()
held.write(token)
held.flush()
os.dup2(held.fileno(), 9)
print(ctypes.addressof(memory), flush=True)
signal.pause()
"""


class Secret(NamedTuple):
    """What must not come out. `path`: where it lies, readable for everybody."""

    token: str
    path: str = ""


def new_token() -> str:
    return f"escape-{secrets.token_hex(12)}"


class Victim(NamedTuple):
    """A process of the user whom the sandboxed programs are, with a secret in its memory, environment, arguments and fd 9."""

    process: subprocess.Popen[str]
    secret: Secret
    address: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class Ear:
    """A socket that listens, and whether anybody has spoken to it."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = listener
        listener.setblocking(False)
        if listener.type == socket.SOCK_STREAM:
            listener.listen(16)

    @property
    def address(self) -> Any:
        return self.socket.getsockname()

    @property
    def heard(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])


class Host:
    """One run's surroundings. `uid` calls the sandbox, `inner_uid` is what its programs are to the kernel."""

    def __init__(self, *, uid: int, inner_uid: int, home: Path) -> None:
        self.uid, self.inner_uid = uid, inner_uid
        self.home = home
        self.environment: dict[str, str] = {}
        """Of the caller."""
        self.inherited: list[int] = []
        """Descriptors that the caller leaks."""
        self.typed = b""
        """What the sandbox has typed into the caller's terminal."""
        self.session_key = new_token()
        """In the caller's session keyring."""
        self._stack = contextlib.ExitStack()
        self.workspace = self.directory("workspace")
        self.outside = self.directory("outside")

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def later(self, action: Callable[..., object], *arguments: Any) -> None:
        """To be done when the run is over."""
        self._stack.callback(action, *arguments)

    def own(self, path: Path) -> Path:
        """Give it to the calling user."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
        return path

    def directory(self, name: str, inside: Path | None = None) -> Path:
        """A new one of the calling user, which all may read."""
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=inside or self.home))
        made.chmod(0o755)
        self.later(shutil.rmtree, made, True)
        return self.own(made)

    def file(self, path: Path, text: str = "") -> Path:
        """A file of the calling user, which all may read; what is made for it is removed with it."""
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(0o755)
            self.own(parent)
        if path.exists():
            raise AssertionError(f"{path} is there already")
        path.write_text(text)
        path.chmod(0o644)
        self.later(shutil.rmtree, missing[-1], True) if missing else self.later(_unlink, path)
        return self.own(path)

    def secret(self, path: Path) -> Secret:
        """A file that holds one."""
        token = new_token()
        return Secret(token, str(self.file(path, f"{token}\n")))

    def hidden(self, name: str = "secret") -> Secret:
        """A secret in a directory beside the workspace."""
        return self.secret(self.directory("beside") / name)

    def victim(self) -> Victim:
        token = new_token()
        become = ["setpriv", f"--reuid={self.inner_uid}", f"--regid={self.inner_uid}", "--clear-groups"]
        argv = [*(become if os.geteuid() == 0 else []), SYSTEM_PYTHON, "-I", "-S", "-c", VICTIM, str(VICTIM_S), token]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"TOKEN": token, "PATH": "/usr/bin:/bin"},
            cwd="/tmp",
        )
        self.later(_end, process)
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{token}\n")
        process.stdin.flush()
        address = int(process.stdout.readline())
        return Victim(process, Secret(token), address)

    def ear(self, family: int, address: Any, kind: int = socket.SOCK_STREAM) -> Ear:
        """A listening socket that everybody may use."""
        listener = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        self.later(listener.close)
        listener.bind(address)
        if family == socket.AF_UNIX and not address.startswith("\0"):
            os.chmod(address, 0o666)
            self.later(_unlink, Path(address))
        return Ear(listener)

    def leaks(self, descriptor: int) -> None:
        """The caller has it open, and lets it be inherited."""
        self.later(os.close, descriptor)
        self.inherited.append(descriptor)

    def meanwhile(self, look: Callable[[], bool]) -> Callable[[], bool]:
        """Look again and again while the program runs; the result tells whether it was ever true, and ends the looking."""
        found, over = threading.Event(), threading.Event()

        def watch() -> None:
            while not over.wait(0.05) and not found.is_set():
                if look():
                    found.set()

        thread = threading.Thread(target=watch)
        thread.start()

        def end() -> bool:
            over.set()
            thread.join()
            return found.is_set()

        self.later(end)
        return end


def processes_with(token: str) -> list[int]:
    """Processes of this host whose arguments hold the token."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if token in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                found.append(int(pid))
    return found


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    with process:
        process.wait()
