"""The worker's end of the channel to the daemon: frames out from any thread, one at a time; frames in by one thread."""

from __future__ import annotations

import os
import select
import socket
import threading
import time

from supervisord_agents.core.model import Usage
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES, FrameReader, frame

ACCEPT_BYTES = 256 * 1024 * 1024
"""The daemon is trusted and may be configured for larger frames than the default; this only catches a broken stream."""
LOG_FRAME_BYTES = 64 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


class Uplink:
    """Sends and receives frames on a blocking stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader(ACCEPT_BYTES)
        self._lock = threading.Lock()
        self._next_beat = time.monotonic() + frames.HEARTBEAT_S
        self._lost = False
        self.work = 0
        """Grows with output and progress."""

    def send(self, message: frames.Frame) -> None:
        """Send a frame, waiting for as long as the daemon does not read. That it has gone is no error here: `receive` tells."""
        data = frame(frames.encoder.encode(message), DEFAULT_MAX_FRAME_BYTES)
        with self._lock:
            self._write(data)

    def receive(self) -> list[bytes] | None:
        """The payloads that have come, None at the end of the stream; sends heartbeats while it waits.

        Raises ProtocolError for what is no frame.
        """
        while True:
            wait_s = max(0.0, self._next_beat - time.monotonic())
            if select.select([self._socket], [], [], wait_s)[0]:
                break
            self._beat()
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._lost = True
            return None
        return self._reader.feed(data)

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + frames.HEARTBEAT_S
        data = frame(frames.encoder.encode(frames.Heartbeat(rss_bytes=_rss_bytes(), work=self.work)))
        # Whoever holds the lock is sending a frame, which is as good a sign of life; waiting here would stop the receiving.
        if self._lock.acquire(blocking=False):
            try:
                self._write(data)
            finally:
                self._lock.release()

    def _write(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            self._socket.sendall(data)
        except OSError:
            self._lost = True


class AttemptReporter:
    """Speaks for one attempt."""

    def __init__(self, uplink: Uplink, task: str, attempt: int) -> None:
        self._uplink = uplink
        self.task = task
        self.attempt = attempt

    def progress(self, fraction: float, message: str = "") -> None:
        fraction = min(1.0, float(fraction)) if fraction >= 0 else -1.0
        self._uplink.work += 1
        self._uplink.send(frames.Progress(task=self.task, attempt=self.attempt, fraction=fraction, message=str(message)))

    def log(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        self.output("worker", data if data.endswith(b"\n") else data + b"\n")

    def usage(self, usage: Usage) -> None:
        self._uplink.send(frames.UsageReport(task=self.task, attempt=self.attempt, usage=usage))

    def output(self, stream: str, data: bytes) -> None:
        """Output of the work, as it is: it need not be text."""
        self._uplink.work += len(data)
        for start in range(0, len(data), LOG_FRAME_BYTES):
            piece = data[start : start + LOG_FRAME_BYTES]
            self._uplink.send(frames.Log(task=self.task, attempt=self.attempt, stream=stream, data=piece))


def _rss_bytes() -> int:
    """Resident memory of this process (proc(5), statm)."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
