"""The worker's end of the channel to the daemon, and what it takes to go on with another daemon."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable

from supervisord_agents.errors import ProtocolError
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.workers.transcript import Transcript

LOG_FRAME_BYTES = 64 * 1024
READ_BYTES = 64 * 1024


class Uplink:
    """Sends and receives frames on a blocking stream socket.

    A daemon that does not read holds the worker up, and by that what its task prints; it reads always unless it is stopped. While
    none is there, and until a new one has said where to go on, what belongs to the attempt waits in the transcript.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader(frames.MAX_FRAME_BYTES)
        self._lost = False
        self._transcript = Transcript()
        self._holding = False
        self.next_beat = time.monotonic() + frames.HEARTBEAT_S

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def full(self) -> bool:
        """Nothing more can wait for a daemon."""
        return self._transcript.full

    def send(self, message: frames.Frame) -> None:
        """Send a frame of no attempt. That the daemon has gone is no error here: `receive` tells."""
        self._send_payload(frames.encoder.encode(message))

    def hello(self) -> None:
        """The first frame on a channel."""
        transcript = self._transcript
        self.send(
            frames.WorkerHello(
                version=frames.WORKER_PROTOCOL_VERSION, pid=os.getpid(), task=transcript.task, attempt=transcript.attempt
            )
        )

    def move(self, sock: socket.socket) -> None:
        """Go on with the daemon behind this channel: say hello, and hold the rest until it says from where."""
        self._socket.close()
        self._socket = sock
        self._reader = FrameReader(frames.MAX_FRAME_BYTES)
        self._lost = False
        self._holding = True
        self.hello()

    def resume(self, offset: int) -> None:
        """Say again what the daemon has not heard; it has this many bytes of the output."""
        self._holding = False
        for message in self._transcript.since(offset):
            self.send(message)
        if self._transcript.end is not None:
            self._send_payload(self._transcript.end)

    def receive(self, flags: int = 0) -> Iterable[bytes] | None:
        """The payloads that have come, None at the end of the stream.

        Raises ProtocolError, also on the way, for no frame; BlockingIOError with MSG_DONTWAIT in the flags.
        """
        try:
            data = self._socket.recv(READ_BYTES, flags)
        except ConnectionError:
            data = b""
        if not data:
            self._lost = True
            return None
        return self._reader.feed(data)

    def beat(self) -> None:
        """A sign of life."""
        self.next_beat = time.monotonic() + frames.HEARTBEAT_S
        self.send(frames.Heartbeat())

    # What an attempt says

    def begin(self, task: frames.RunTask) -> None:
        """All that follows is of this attempt."""
        self._holding = False
        self._transcript = Transcript(task.task, task.attempt)

    def log(self, stream: str, data: bytes) -> None:
        """Output of the work, as it is: it need not be text."""
        for start in range(0, len(data), LOG_FRAME_BYTES):
            piece = self._transcript.log(stream, data[start : start + LOG_FRAME_BYTES], sent=self._heard)
            self._say(piece)

    def report(self, report: frames.Progress | frames.UsageReport) -> None:
        """Progress, or all that the attempt has used."""
        self._transcript.note(report)
        self._say(report)

    def ask(self, question: frames.Question) -> None:
        """What the daemon answers."""
        self._transcript.ask(question)
        self._say(question)

    def answered(self, answer: frames.Answer) -> None:
        """The daemon has answered."""
        self._transcript.answered(answer)

    def end(self, payload: bytes) -> None:
        """The attempt's last frame, encoded already."""
        self._transcript.end = payload
        if self._heard:
            self._send_payload(payload)

    @property
    def _heard(self) -> bool:
        return not (self._lost or self._holding)

    def _say(self, message: frames.Frame) -> None:
        if self._heard:
            self.send(message)

    def _send_payload(self, payload: bytes) -> None:
        if self._lost:
            return
        try:
            self._socket.sendall(frame(payload, frames.MAX_FRAME_BYTES))
        except OSError:
            self._lost = True


class Handover:
    """Where a new daemon hands in the worker's end of a new channel: one packet of one byte, with the descriptor beside it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> socket.socket | None:
        """The new channel; None when nobody can hand in another. Raises ProtocolError for a packet without one."""
        packet, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not packet:
            return None
        if not descriptors:
            raise ProtocolError("a new channel was announced, but there was no descriptor for it.")
        os.set_inheritable(descriptors[0], False)
        return socket.socket(fileno=descriptors[0])


def hand_over(handover: int, channel: int) -> None:
    """The daemon's side: give the worker behind the descriptor `handover` its end of a new channel. A dead one is not told."""
    with socket.socket(fileno=os.dup(handover)) as sock, contextlib.suppress(BrokenPipeError, ConnectionError):
        sock.settimeout(0.0)
        socket.send_fds(sock, [b"\0"], [channel])
