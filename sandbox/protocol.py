"""What the fork server and its client say to each other: one message a packet, descriptors beside it."""

from __future__ import annotations

import array
import contextlib
import os
import socket

import msgspec

from sandbox import linux
from sandbox.spec import SandboxSpec

VERSION = 3
"""Of what is said here: a client may find a server that an older installation started."""
MAX_PACKET_BYTES = 128 * 1024
MAX_ORDER_BYTES = 3 * MAX_PACKET_BYTES
"""For what a specification becomes on its way into a child: each bind is in it once as such and once in the plan."""
MAX_DESCRIPTORS = 64


class Message(msgspec.Struct, frozen=True, array_like=True, tag_field="type"):
    """Base of all messages."""


class Spawn(Message, tag="spawn", frozen=True):
    """Make a sandbox; beside it, the descriptors that its program gets as `numbers`, then those that the server keeps for it."""

    id: int
    spec: SandboxSpec
    numbers: tuple[int, ...]
    label: bytes = b""
    """What a successor of this client needs to know of it; empty: it is not for a successor."""
    kept: int = 0


class Renew(Message, tag="renew", frozen=True):
    """What a sandbox adds to disks counts from now on."""

    id: int


class Stop(Message, tag="stop", frozen=True):
    """Kill all sandboxes now and end."""


class Started(Message, tag="started", frozen=True):
    """The server is there. `layers`: each resource of cgroup.FIELDS with what enforces it or why nothing does."""

    cgroup: str
    layers: dict[str, str]
    version: int = VERSION
    last_id: int = 0
    """The greatest id that a sandbox here has had."""
    found: int = 0
    """How many sandboxes of an earlier client are there: a `Found` each follows."""
    without: str = ""
    """Why the sandboxes here have no namespaces; empty: they have."""


class NotStarted(Message, tag="not started", frozen=True):
    """The server has ended for this."""

    message: str
    step: str
    errno: int
    hint: str


class Spawned(Message, tag="spawned", frozen=True):
    """The program runs; beside it, the pidfd of PID 1, the listeners, and if it is supervised the socket of its events."""

    id: int
    pid: int
    supervised: bool = False


class Found(Message, tag="found", frozen=True):
    """A sandbox of an earlier client, with its label; beside it its pidfd, what was kept for it, its listeners, and if it is
    supervised the socket of its events.

    Without any of these it has ended since, and how is said by `Exited`.
    """

    id: int
    pid: int
    label: bytes
    kept: int
    supervised: bool = False


class Refused(Message, tag="refused", frozen=True):
    """No sandbox was made."""

    id: int
    message: str
    step: str
    errno: int
    hint: str


class Exited(Message, tag="exited", frozen=True):
    """PID 1 and all else in the sandbox have ended."""

    id: int
    code: int
    """Exit code; -1 after a signal."""
    signal: int
    oom_killed: bool
    pids_limit_hit: bool
    memory_peak_bytes: int
    cpu_s: float
    timed_out: bool = False
    stalled_s: dict[str, float] = {}
    disk_limit_hit: bool = False


DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises for bytes that are no message."""
_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Spawn | Renew | Stop)
Answer = Started | NotStarted | Spawned | Found | Refused | Exited
_answer_decoder = msgspec.msgpack.Decoder(Answer)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends that keep packets apart, neither of which is a standard descriptor."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if min(end.fileno() for end in ends) > 2:
        return ends
    with ends[0], ends[1]:
        first, second = (socket.socket(fileno=linux.above_standard(end.fileno())) for end in ends)
    return first, second


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


class Misunderstood(msgspec.ValidationError):
    """A packet that is no request; `id` is that of the request that it was meant to be."""

    def __init__(self, message: str, id: int) -> None:
        super().__init__(message)
        self.id = id


def receive_request(sock: socket.socket) -> tuple[Spawn | Renew | Stop, list[int]] | None:
    """The next request with its descriptors; None when the client is gone. Raises Misunderstood."""
    packet, descriptors = receive_packet(sock, MAX_PACKET_BYTES)
    if not packet:
        return None
    try:
        return _request_decoder.decode(packet), descriptors
    except DECODE_ERRORS as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Misunderstood(str(error), _id_in(packet)) from error


def _id_in(packet: bytes) -> int:
    """The id in a request of which something else is wrong; 0: none can be seen."""
    with contextlib.suppress(*DECODE_ERRORS):
        match msgspec.msgpack.decode(packet):
            case [_, int(id), *_]:
                return id
    return 0


def receive_answer(sock: socket.socket) -> tuple[Answer, list[int]] | None:
    """The next answer with its descriptors; None when the server is gone. Raises BlockingIOError when there is none yet."""
    packet, descriptors = receive_packet(sock, MAX_PACKET_BYTES)
    return (_answer_decoder.decode(packet), descriptors) if packet else None


def receive_packet(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """One packet of at most `size` bytes, and the descriptors beside it, which are closed on exec.

    Empty at the end, be it that the other side has left something unread.
    """
    # Not socket.recv_fds: it loses its flags in Python 3.11.
    numbers = array.array("i")
    space = socket.CMSG_LEN(MAX_DESCRIPTORS * numbers.itemsize)
    try:
        packet, beside, _, _ = sock.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return packet, list(numbers)
