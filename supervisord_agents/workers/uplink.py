"""The worker's end of the channel to the daemon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader, frame

LOG_FRAME_BYTES = 64 * 1024
READ_BYTES = 64 * 1024


class Uplink:
    """Sends and receives frames on a blocking stream socket.

    A daemon that does not read holds the worker up, and by that what its task prints; it reads always unless it is stopped.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader(frames.MAX_FRAME_BYTES)
        self._lost = False
        self.next_beat = time.monotonic() + frames.HEARTBEAT_S

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: frames.Frame) -> None:
        """Send a frame. That the daemon has gone is no error here: `receive` tells."""
        self.send_payload(frames.encoder.encode(message))

    def send_payload(self, payload: bytes) -> None:
        """The same for one that is encoded already."""
        if self._lost:
            return
        try:
            self._socket.sendall(frame(payload, frames.MAX_FRAME_BYTES))
        except OSError:
            self._lost = True

    def receive(self) -> Iterable[bytes] | None:
        """The payloads that have come, None at the end of the stream. Raises ProtocolError, also on the way, for no frame."""
        try:
            data = self._socket.recv(READ_BYTES)
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

    def log(self, task: frames.RunTask, stream: str, data: bytes) -> None:
        """Output of the work, as it is: it need not be text."""
        for start in range(0, len(data), LOG_FRAME_BYTES):
            piece = data[start : start + LOG_FRAME_BYTES]
            self.send(frames.Log(task=task.task, attempt=task.attempt, stream=stream, data=piece))
