"""One worker as the daemon sees it: a sandbox, the channel to it, and what it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

import msgspec
import structlog

from sandbox.errors import SandboxError
from sandbox.spawner import Exit, Sandbox
from supervisord_agents.config import Pool
from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode, ProtocolError, SupervisorError
from supervisord_agents.journal.files import NO_SPACE
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.workers.recycling import Wear, own_memory_bytes
from supervisord_agents.workers.shape import Shape

log = structlog.get_logger()
PROGRESS_S = 0.1
"""At most one `progress` of an attempt is passed on in this time: the newest."""


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


class Hearing(Protocol):
    """The supervisor of the worker's sandbox, heard."""

    def catch_up(self) -> None: ...

    async def close(self) -> None: ...


class Worker:
    """State of one worker. Only the pool changes it."""

    def __init__(self, id: str, pool: str, shape: Shape, uid: int) -> None:
        self.id = id
        self.pool = pool
        self.shape = shape
        self.uid = uid
        self.adopted = False
        """An earlier daemon made it. Before its hello nothing is known of what it does."""
        self.reusable = True
        """May be given another task after this one."""
        self.phase = Phase.SPAWNING
        self.task = ""
        self.attempt = 0
        self.message: frames.RunTask | None = None
        """What it is to be told when it is ready."""
        self.told = False
        self.stop_code = ""
        """Why its attempt was stopped by the daemon; its end is then already decided."""
        self.ready = False
        self.last_sign = time.monotonic()
        self.wear = Wear(self.last_sign)
        self.idle_since = 0.0
        self.claimed_at = 0.0
        """For the attempt that it has, on the monotonic clock."""
        self.strays = 0
        self.progress = Progress()
        self.sandbox: Sandbox | None = None
        self.channel: Channel | None = None
        self.gate: Gate | None = None
        self.hearing: Hearing | None = None
        self.gone = asyncio.Event()
        self.replaced = False
        """It dies, and another one waits for its place."""

    @property
    def unclaimed(self) -> bool:
        """Free to be given a task of its shape, now or as soon as it is up."""
        return not (self.task or self.unknown) and self.phase in (Phase.IDLE, Phase.SPAWNING)

    @property
    def cold(self) -> bool:
        """Not up yet; or to do many tasks, and none so far."""
        return not self.ready or (self.reusable and not self.wear.tasks)

    @property
    def unknown(self) -> bool:
        """What it does has not been told yet."""
        return self.adopted and not self.ready

    @property
    def occupied(self) -> bool:
        """Not to be counted on for another task."""
        return bool(self.task) or self.unknown or self.phase is Phase.BUSY or (self.phase is Phase.DYING and not self.replaced)

    def busy_with(self, task: str, attempt: int) -> bool:
        return bool(self.task) and (self.task, self.attempt) == (task, attempt)

    def worn_out(self, pool: Pool) -> bool:
        """Whether it is to be replaced, now that a task of it is over and it has cleared up."""
        self.wear.measured(own_memory_bytes(self.sandbox.pid) if self.sandbox is not None else 0)
        why = self.wear.out(pool, time.monotonic())
        if why:
            log.info("worker_recycled", worker=self.id, reason=why)
        return bool(why)

    def kill(self) -> None:
        """End the whole tree; the exit is noticed by whoever waits for the sandbox."""
        self.phase = Phase.DYING
        if self.sandbox is not None:
            self.sandbox.kill()

    def forget_attempt(self) -> None:
        """Its attempt is over, whatever of it still comes."""
        self.task, self.attempt, self.message, self.told, self.stop_code = "", 0, None, False, ""
        self.progress.held = None
        self.progress = Progress()
        if self.gate is not None:
            self.gate.task = ""


class Progress:
    """Lets the newest report of an attempt through, once in PROGRESS_S."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self.held: frames.Progress | None = None
        """What waits for its time."""

    def offer(self, report: frames.Progress) -> bool:
        """Whether it is time for one; else the report is held, in place of the one before."""
        now = time.monotonic()
        if now >= self._not_before:
            self._not_before = now + PROGRESS_S
            return True
        self.held = report
        return False

    def take(self) -> frames.Progress | None:
        """What was held."""
        held, self.held = self.held, None
        self._not_before = time.monotonic() + PROGRESS_S
        return held


class Channel(asyncio.Protocol):
    """The daemon's end of a worker's socketpair. Frames go to `on_frame`, what goes wrong to `on_garbage`."""

    def __init__(
        self,
        on_frame: Callable[[frames.FromWorker], None],
        on_garbage: Callable[[Exception], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._on_frame = on_frame
        self._on_garbage = on_garbage
        self._on_closed = on_closed
        self._reader = FrameReader(frames.MAX_FRAME_BYTES)
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()

    async def serve(self, sock: socket.socket) -> None:
        """Serve the daemon's end of the pair."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._on_closed()

    async def drained(self, timeout_s: float) -> None:
        """Wait until everything that a dead peer had sent is handled, then close."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), timeout_s)
        self.close()

    def data_received(self, data: bytes) -> None:
        # Of any kind: what a frame brings about must cost its worker, never the loop or another one.
        try:
            for payload in self._reader.feed(data):
                self._on_frame(_decoded(payload))
        except Exception as error:
            self.close()
            self._on_garbage(error)

    def send(self, message: frames.ToWorker) -> None:
        """Queue a frame; raises ProtocolError if it is larger than the protocol allows."""
        assert self._transport is not None
        self._transport.write(frame(frames.encoder.encode(message), frames.MAX_FRAME_BYTES))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _decoded(payload: bytes) -> frames.FromWorker:
    try:
        frame: frames.FromWorker = frames.from_worker_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the worker sent a frame that is not of the worker protocol: {error}.") from error
    return frame


NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def death_of(exit: Exit) -> Failure:
    """What an attempt fails of when its worker ended without a result."""
    if exit.oom_killed:
        message = f"the worker was killed for memory: it used {exit.memory_peak_bytes >> 20} MiB, its limit."
        return Failure(code=ErrorCode.OUT_OF_MEMORY, message=message)
    if exit.disk_limit_hit:
        message = "the worker was killed: the attempt added more to the disk than its profile's disk_bytes or disk_files."
        hint = "What it has written is still there. A profile can allow more: docs/sandbox.md."
        return Failure(code=ErrorCode.DISK_QUOTA, message=message, hint=hint, retriable=False)
    how = f"signal {exit.signal}" if exit.signal else f"exit code {exit.code}"
    more = " It had reached its process limit." if exit.pids_limit_hit else ""
    return Failure(code=ErrorCode.WORKER_DIED, message=f"the worker ended without a result: {how}.{more}")


def refusal_of(error: Exception) -> Failure:
    """What an attempt fails of when there is no sandbox for it: retried, unless the sandbox was really refused."""
    if isinstance(error, SupervisorError):
        lasting = error.code in (ErrorCode.INVALID, ErrorCode.SANDBOX_DENIED)
        return Failure(code=error.code, message=str(error), hint=error.hint, retriable=not lasting)
    number = getattr(error, "errno", None) or 0
    message = f"no sandbox for it: {error}"
    if number in NO_SPACE:
        return Failure(code=ErrorCode.DISK_FULL, message=message)
    refused = isinstance(error, SandboxError) and number not in NO_ROOM and not (error.step == "build" and not number)
    if refused:
        return Failure(code=ErrorCode.SANDBOX_DENIED, message=message, retriable=False)
    return Failure(code=ErrorCode.INTERNAL, message=message)
