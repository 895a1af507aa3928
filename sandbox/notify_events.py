"""What a supervisor tells of a sandbox, and how its reader gets it: one message a packet, bounded at the source."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import msgspec

MAX_EVENT_BYTES = 32 * 1024
MOST_AT_ONCE = 256
NO_NETWORK, ABSENT, READ_ONLY, ALLOWED = "no network", "absent", "read-only", "allowed"


class Attempt(msgspec.Struct, frozen=True, array_like=True, tag="attempt"):
    """A call that the supervisor saw.

    What is read of a process's memory can have been changed by it before the kernel used it: this is a report, not a proof.
    """

    syscall: str
    path: str
    """Path or address that it is about; empty: it has none, or it could not be read."""
    pid: int
    """As the sandbox itself counts; 0: it cannot be told."""
    program: str
    decision: str
    """The name of the error that it was answered with; else the kernel decided, and this is why it cannot have come far:
    `no network`, `absent` (nothing is shown there) or `read-only`. `allowed` only while recording."""
    arguments: str = ""
    """The others, in words, where they say more."""
    writes: bool = False
    """It would change what is at the path."""


class Missed(msgspec.Struct, frozen=True, array_like=True, tag="missed"):
    """So many more were seen, but not told one by one."""

    count: int


Event = Attempt | Missed
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Attempt | Missed)


def encode(event: Event) -> bytes:
    return _encoder.encode(event)


def line(event: Event) -> str:
    """An event in words, for people: on one line, with nothing in it that a terminal would obey."""
    if isinstance(event, Missed):
        return f"the sandbox refused or hid {event.count} more"
    who = (f"pid {event.pid}" if event.pid else "a thread") + (f" ({_shown(event.program)})" if event.program else "")
    path = f'"{_shown(event.path)}"' if event.path else ""
    call = f"{event.syscall}({', '.join(filter(None, (path, event.arguments)))}) by {who}"
    match event.decision:
        case "absent":
            return f"the sandbox hid {path}: {event.syscall} by {who}"
        case "read-only":
            return f"the sandbox kept {path} read-only: {event.syscall} by {who}"
        case "no network":
            return f"the sandbox has no network: {call}"
        case "allowed":
            return f"the sandbox allowed {call}"
    return f"the sandbox refused {call}: {event.decision}"


def _shown(text: str) -> str:
    printable = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return "".join(printable).replace('"', '\\"')


class Follower:
    """Reads the events of one sandbox in a loop, and gives each to `on_event`, which must not raise."""

    def __init__(self, sock: socket.socket, on_event: Callable[[Event], None]) -> None:
        """`sock` is the follower's own from now on."""
        self._sock = sock
        self._on_event = on_event
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self.read)

    async def drained(self, timeout_s: float) -> None:
        """Wait until all that was seen in a sandbox that has ended is told, then close."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            self.close()

    def close(self) -> None:
        """Hear no more; again is harmless."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        self._ended.set()

    def begin_anew(self) -> None:
        """Have told what comes from now on also where the same was told before: it is somebody else's."""
        with contextlib.suppress(OSError):  # it has ended, or has enough of these to read
            self._sock.send(b"anew")

    def read(self) -> None:
        """Hear what is there now."""
        # A bounded number at a time: the loop has others to serve.
        for _ in range(MOST_AT_ONCE):
            try:
                packet = self._sock.recv(MAX_EVENT_BYTES)
            except BlockingIOError:
                return
            except OSError:  # closed by us, or reset
                packet = b""
            if not packet:
                self.close()
                return
            self._on_event(_decoder.decode(packet))
