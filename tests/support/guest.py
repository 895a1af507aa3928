"""A real machine with systemd as PID 1 and cgroup v2, under qemu's software emulation: started, given commands, powered off.

Nothing that a test writes in it outlives it: the disk image of tests/systemd/guest/build is only read.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import shlex
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "build" / "systemd"
BOOT_TIMEOUT_S = 300.0
COMMAND_TIMEOUT_S = 300.0
POWER_OFF_TIMEOUT_S = 120.0
MEMORY_MIB = 1536
GIVEN = ("systemd", "build/wheels", "config.toml", "constraints.txt")
"""What systemd/install takes from a clone."""
SUITE = ("tests/escape", "tests/support")
SITE = ("_pytest", "iniconfig", "packaging", "pluggy", "py.py", "pygments", "pytest")
"""What the escape suite needs beside the program."""
KERNEL_ARGUMENTS = "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 mitigations=off systemd.show_status=0 quiet"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.stdout}{self.stderr}"


class Guest:
    """One run of the machine; `directory` gets its console and the files that it is given, all of which it sees in /given.

    `newer`: under a kernel of the next Debian instead of its own.
    """

    def __init__(self, directory: Path, given: dict[str, Path], *, newer: bool = False) -> None:
        self.console = directory / "console.log"
        disk = directory / "given.tar"
        _pack(disk, given)
        kernel = "-newer" if newer else ""
        argv = _newer_emulator() if newer else ["qemu-system-x86_64"]
        argv += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
        argv += ["-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-kernel", f"{IMAGE}/vmlinuz{kernel}", "-initrd", f"{IMAGE}/initrd{kernel}", "-append", KERNEL_ARGUMENTS]
        argv += ["-drive", f"file={IMAGE / 'disk'},if=virtio,format=raw,snapshot=on"]
        argv += ["-drive", f"file={disk},if=virtio,format=raw,readonly=on"]
        argv += ["-serial", f"file:{self.console}", "-serial", "stdio"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._received = b""

    def boot(self) -> None:
        """Wait until it takes commands, and unpack what it was given."""
        assert self._answer(BOOT_TIMEOUT_S) == {"up": True}
        self.check("mkdir /given && tar -C /given -xf /dev/vdb")

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Run a shell command as root and give what became of it."""
        assert self._process.stdin is not None
        request = {"argv": ["sh", "-c", command], "stdin": stdin}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return Done(**self._answer(timeout_s))

    def check(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command that must succeed; gives its output."""
        done = self.run(command, stdin=stdin, timeout_s=timeout_s)
        assert done.code == 0, f"{command}: {done}"
        return done.stdout

    def wait_for(self, command: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command again and again until it succeeds; gives its output."""
        loop = f"until {command}; do sleep 0.2; done"
        return self.check(f"timeout {timeout_s:.0f} sh -c {shlex.quote(loop)}", timeout_s=timeout_s + 30)

    def write(self, path: str, text: str) -> None:
        self.check(f"mkdir -p $(dirname {shlex.quote(path)}) && cat >{shlex.quote(path)}", stdin=text)

    def close(self) -> None:
        """Power it off; without an answer, pull the plug."""
        try:
            if self._process.poll() is None:
                with contextlib.suppress(AssertionError, OSError):  # it may be off before it answers
                    self.run("systemctl poweroff --no-block", timeout_s=POWER_OFF_TIMEOUT_S)
                self._process.wait(POWER_OFF_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line from the guest."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                assert ready.select(deadline - time.monotonic()), f"no answer in {timeout_s:.0f} s:\n{self._console_end()}"
                data = self._process.stdout.read(65536)
                assert data, f"the machine has stopped:\n{self._console_end()}"
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _console_end(self) -> str:
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return "\n".join(text.splitlines()[-40:])


@contextlib.contextmanager
def booted(directory: Path, *, newer: bool = False) -> Iterator[Guest]:
    """A machine with what can be installed in /given; nothing is installed yet."""
    packages = Path(pytest.__file__).parents[1]
    given = {name: ROOT / name for name in (*GIVEN, *SUITE)}
    given |= {f"site/{name}": packages / name for name in SITE}
    guest = Guest(directory, given, newer=newer)
    try:
        guest.boot()
        yield guest
    finally:
        guest.close()


def _newer_emulator() -> list[str]:
    root = IMAGE / "qemu" / "usr"
    return [f"{root}/bin/qemu-system-x86_64", "-L", f"{root}/share/qemu", "-L", f"{root}/share/seabios"]


def _pack(archive: Path, given: dict[str, Path]) -> None:
    with tarfile.open(archive, "w") as tar:
        for name, path in given.items():
            tar.add(path, name)
    # A disk has whole sectors.
    with archive.open("ab") as file:
        file.truncate(-(-archive.stat().st_size // 512) * 512)
