"""A process of an attempt, in a session of its own: its output is read as it comes, its end noticed, and it can be stopped."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import time
from collections.abc import Callable

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire.frames import STOP_GRACE_S

READ_BYTES = 64 * 1024
DRAIN_S = 1.0
"""For output that grandchildren hold back after a program itself has ended."""
LEFT_OVER_BYTES = 4 * 1024 * 1024
"""Read of a pipe after the end of all that could write into it; above what one can hold unless somebody else goes on."""


class Kept:
    """The beginning (or, as `tail`, the end) of a stream, up to `limit` bytes."""

    def __init__(self, limit: int, *, tail: bool) -> None:
        self._limit = limit
        self._tail = tail
        self._data = bytearray()
        self.truncated = False

    def add(self, data: bytes) -> None:
        if not self._tail:
            data, rest = data[: self._limit - len(self._data)], data[self._limit - len(self._data) :]
            self.truncated = self.truncated or bool(rest)
        self._data += data
        if self._tail and len(self._data) > 2 * self._limit:
            self._cut()

    def _cut(self) -> None:
        if len(self._data) > self._limit:
            del self._data[: len(self._data) - self._limit]
            self.truncated = True

    def bytes(self) -> bytes:
        self._cut()
        return bytes(self._data)


class Child:
    """One child process that leads a session. It is `over` when it has ended and its output has, or DRAIN_S have passed."""

    def __init__(self, selector: selectors.BaseSelector, pid: int, *, drain_s: float = DRAIN_S) -> None:
        self.pid = pid
        self.code = -1
        """Exit code; -1 if a signal ended it."""
        self.signal = 0
        self.stop_requested = False
        self._selector = selector
        self._drain_s = drain_s
        self._ended = False
        self._kill_at = math.inf
        self._over_at = math.inf
        self._readers: dict[int, Callable[[bytes], None]] = {}
        self._held = False
        self._input = -1
        self._pending = memoryview(b"")
        self._pidfd = os.pidfd_open(pid)
        selector.register(self._pidfd, selectors.EVENT_READ, self._on_exit)

    def read(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        """Own this end of a pipe and hand on what comes out of it."""
        os.set_blocking(descriptor, False)
        self._readers[descriptor] = take
        self._listen(descriptor)

    def hold(self, held: bool) -> None:
        """Whether to read no output for now: what the program writes waits in its pipes, and then the program."""
        if held == self._held:
            return
        for descriptor in self._readers:
            if held:
                self._selector.unregister(descriptor)
            else:
                self._listen(descriptor)
        self._held = held

    def feed(self, descriptor: int, data: bytes) -> None:
        """Own this end of a pipe, put data into it and close it."""
        os.set_blocking(descriptor, False)
        self._input, self._pending = descriptor, memoryview(data)
        self._selector.register(descriptor, selectors.EVENT_WRITE, self._feed)

    def stop(self) -> None:
        """Ask its process group to end, and kill it STOP_GRACE_S later."""
        if not self.stop_requested:
            self.stop_requested = True
            self._signal(signal.SIGTERM)
            self._kill_at = time.monotonic() + STOP_GRACE_S

    def kill(self) -> None:
        """End its process group at once."""
        self._signal(signal.SIGKILL)

    @property
    def deadline(self) -> float:
        """When `on_time` is due, on the monotonic clock."""
        return min(self._kill_at, self._over_at)

    def on_time(self, now: float) -> None:
        """Do what has become due."""
        if now >= self._kill_at:
            self._kill_at = math.inf
            self.kill()

    @property
    def over(self) -> bool:
        return self._ended and (not self._readers or time.monotonic() >= self._over_at)

    @property
    def how(self) -> str:
        """Its end in words."""
        return f"was ended by signal {self.signal}" if self.signal else f"exited with code {self.code}"

    def drain(self) -> None:
        """Take what is left in the pipes, without waiting for more."""
        for descriptor in list(self._readers):
            left = LEFT_OVER_BYTES
            while left > 0 and (taken := self._pump(descriptor)):
                left -= taken

    def close(self) -> None:
        """Let go of all descriptors."""
        for descriptor in list(self._readers):
            self._forget(descriptor)
        self._stop_feeding()
        if self._pidfd >= 0:
            self._selector.unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        # The number of a group belongs to it until its leader has been waited for.
        if not self._drain_s:
            self.kill()
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert status is not None
        if status.si_code == os.CLD_EXITED:
            self.code = status.si_status
        else:
            self.signal = status.si_status
        self._ended = True
        self._kill_at, self._over_at = math.inf, time.monotonic() + self._drain_s
        self._selector.unregister(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1

    def _signal(self, number: int) -> None:
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _listen(self, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: self._pump(descriptor))

    def _pump(self, descriptor: int) -> int:
        """Read once; gives how much."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        if data:
            self._readers[descriptor](data)
        else:
            self._forget(descriptor)
        return len(data)

    def _feed(self) -> None:
        try:
            if self._pending:
                self._pending = self._pending[os.write(self._input, self._pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending = self._pending[:0]
        if not self._pending:
            self._stop_feeding()

    def _stop_feeding(self) -> None:
        if self._input >= 0:
            self._selector.unregister(self._input)
            os.close(self._input)
            self._input = -1

    def _forget(self, descriptor: int) -> None:
        if not self._held:
            self._selector.unregister(descriptor)
        os.close(descriptor)
        del self._readers[descriptor]


def cancelled(child: Child, what: str) -> Failure:
    """The failure of an attempt that was asked to stop."""
    return Failure(code=ErrorCode.CANCELLED, message=f"cancelled: the {what} {child.how}.", retriable=False)
