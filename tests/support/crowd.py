"""Clients that are a burden, in a process of their own: `python -m tests.support.crowd KIND SOCKET COUNT`.

`idle` ones say hello and no more. `slow` ones subscribe to everything, ask for long lists all the time, and read a byte now and
then. `deaf` ones ask for long lists as fast as they can, and never read. The process says `ready` on stdout, and goes on until
its stdin ends.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from supervisord_agents.wire.messages import PROTOCOL_VERSION
from tests.support.daemon import ROOT

KINDS = ("idle", "slow", "deaf")
TURN_S = 0.02
SMALL_BUFFER_BYTES = 4096
ASK_AT_ONCE = 64


def _call(id: int, **request: object) -> bytes:
    payload = msgspec.msgpack.encode([id, request])
    return struct.pack("<I", len(payload)) + payload


class Member:
    """One client, connected and greeted."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        while True:
            try:
                self.sock.connect(path)
                break
            except BlockingIOError:
                time.sleep(TURN_S)
        self.sock.sendall(_call(0, type="hello", version=PROTOCOL_VERSION))
        self._next = 1
        self._unsent = b""
        self.gone = False

    def greeted(self) -> None:
        (length,) = struct.unpack("<I", self._exactly(4))
        self._exactly(length)
        self.sock.setblocking(False)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.sock.recv(size - len(data))
        return data

    def ask(self, **request: object) -> None:
        """Send as much as the daemon takes of it; ids are never used twice."""
        with contextlib.suppress(BlockingIOError):
            while not self._unsent:
                batch = b"".join(_call(self._next + number, **request) for number in range(ASK_AT_ONCE))
                self._next += ASK_AT_ONCE
                self._send(batch)
            self._send(b"")

    def _send(self, data: bytes) -> None:
        self._unsent += data
        try:
            sent = self.sock.send(self._unsent)
        except (BrokenPipeError, ConnectionResetError):
            self.gone = True
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]

    def sip(self) -> None:
        """Read one byte, if there is one."""
        try:
            self.gone = self.gone or self.sock.recv(1) == b""
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.gone = True


def main() -> None:
    kind, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    members = []
    for _ in range(count):
        members.append(Member(path))
        members[-1].greeted()
    if kind == "slow":
        for member in members:
            member._send(_call(1, type="subscribe", after="0.0", logs=True))
            member._next = 2
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 3600.0 if kind == "idle" else TURN_S)[0]:
        for member in members:
            if not member.gone:
                member.ask(type="list", limit=1000)
            if kind == "slow" and not member.gone:
                member.sip()


@contextmanager
def crowd(kind: str, path: Path, count: int) -> Iterator[subprocess.Popen[str]]:
    """So many clients of that kind, while the context lasts."""
    argv = [sys.executable, "-m", "tests.support.crowd", kind, str(path), str(count)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n", "the crowd did not come in"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
