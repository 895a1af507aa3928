"""One worker as the daemon sees it: a sandbox, the channel to it, and what it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

import msgspec

from sandbox.spawner import Exit, Sandbox
from supervisord_agents.errors import ProtocolError
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.workers.shape import Shape


class Phase(Enum):
    """A worker's life, in this order; IDLE and BUSY may alternate."""

    SPAWNING = "spawning"
    IDLE = "idle"
    BUSY = "busy"
    DYING = "dying"


class Gate(Protocol):
    """The worker's way to the model gateway."""

    task: str

    async def close(self) -> None: ...


class Worker:
    """State of one worker. Only the pool changes it."""

    def __init__(self, id: str, pool: str, shape: Shape, reusable: bool) -> None:
        self.id = id
        self.pool = pool
        self.shape = shape
        self.reusable = reusable
        """May be given another task after this one."""
        self.phase = Phase.SPAWNING
        self.task = ""
        self.attempt = 0
        self.stop_code = ""
        """Why its attempt was stopped by the daemon; its end is then already decided."""
        self.ready = asyncio.Event()
        self.last_beat = time.monotonic()
        self.born = time.monotonic()
        self.idle_since = 0.0
        self.tasks_run = 0
        self.sandbox: Sandbox | None = None
        self.channel: Channel | None = None
        self.gate: Gate | None = None

    def busy_with(self, task: str, attempt: int) -> bool:
        return self.task == task and self.attempt == attempt

    def kill(self) -> None:
        """End the whole tree; the exit is noticed by whoever waits for the sandbox."""
        self.phase = Phase.DYING
        if self.sandbox is not None:
            self.sandbox.kill()


class Channel(asyncio.Protocol):
    """The daemon's end of a worker's socketpair. Frames go to `on_frame`; what is no frame of the protocol to `on_garbage`."""

    def __init__(
        self, on_frame: Callable[[frames.FromWorker], None], on_garbage: Callable[[ProtocolError], None], max_bytes: int
    ) -> None:
        self._on_frame = on_frame
        self._on_garbage = on_garbage
        self._reader = FrameReader(max_bytes)
        self._max_bytes = max_bytes
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        on_frame: Callable[[frames.FromWorker], None],
        on_garbage: Callable[[ProtocolError], None],
        max_bytes: int,
    ) -> Channel:
        """Serve the daemon's end of the pair."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(on_frame, on_garbage, max_bytes), sock=sock)
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    async def drained(self, timeout_s: float) -> None:
        """Wait until everything that a dead peer had sent is handled, then close."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), timeout_s)
        self.close()

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                self._on_frame(frames.from_worker_decoder.decode(payload))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            self._refuse(ProtocolError(f"the worker sent a frame that is not of the worker protocol: {error}."))
        except ProtocolError as error:
            self._refuse(error)

    def _refuse(self, error: ProtocolError) -> None:
        self.close()
        self._on_garbage(error)

    def send(self, message: frames.ToWorker) -> None:
        """Queue a frame; raises ProtocolError if it is larger than the protocol allows."""
        assert self._transport is not None
        self._transport.write(frame(frames.encoder.encode(message), self._max_bytes))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def death_of(exit: Exit) -> tuple[str, str]:
    """Error code and message for a worker that ended without a result."""
    if exit.oom_killed:
        return "OUT_OF_MEMORY", f"the worker was killed for memory: it used {exit.memory_peak_bytes >> 20} MiB, its limit."
    how = f"signal {exit.signal}" if exit.signal else f"exit code {exit.code}"
    more = " It had reached its process limit." if exit.pids_limit_hit else ""
    return "WORKER_DIED", f"the worker ended without a result: {how}.{more}"
