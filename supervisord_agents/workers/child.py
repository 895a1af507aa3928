"""The program of an attempt: started in a process group of its own, its output passed on as it comes, its end read once."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode
from supervisord_agents.workers.agents.base import AgentFailure, Exit, Launch
from supervisord_agents.workers.reaper import is_init, reap_orphans

READ_BYTES = 64 * 1024
STOP_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
DRAIN_S = 1.0
"""For output that grandchildren hold back after the program itself has ended."""
Emit = Callable[[str, bytes], None]


class Stop:
    """Asks for the end of a running child, from any thread."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self.requested = False

    def request(self) -> None:
        self.requested = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, b"\0")

    def clear(self) -> None:
        """Forget a request, before the next attempt."""
        self.requested = False
        self.calm()

    def calm(self) -> None:
        """Take note of having been woken."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_end, 4096)

    def fileno(self) -> int:
        return self._read_end

    @contextlib.contextmanager
    def woken_by_children(self) -> Iterator[None]:
        """Let every dying child wake whoever waits here; for PID 1, whose orphans die unannounced."""
        before = signal.signal(signal.SIGCHLD, lambda *_: None)
        wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGCHLD, before)


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
    """One program, from start to end."""

    def __init__(self, launch: Launch, emit: Emit, stop: Stop) -> None:
        self._launch = launch
        self._emit = emit
        self._stop = stop
        self._stdout = Kept(launch.keep_stdout_bytes, tail=False)
        self._stderr = Kept(launch.keep_stderr_bytes, tail=True)
        self._selector = selectors.DefaultSelector()
        self._kill_at = 0.0
        self._pending = memoryview(launch.stdin)
        self._process: subprocess.Popen[bytes]

    def run(self) -> Exit:
        """Run it to its end; raises AgentFailure if it cannot be started."""
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            if is_init():
                stack.enter_context(self._stop.woken_by_children())
            stack.callback(self._selector.close)
            self._process = _start(self._launch)
            stack.callback(self._close_pipes)
            pidfd = os.pidfd_open(self._process.pid)
            stack.callback(os.close, pidfd)
            self._watch(pidfd)
            self._serve_until_exit(pidfd)
            status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            assert status is not None
            exited = status.si_code == os.CLD_EXITED
            self._process.returncode = status.si_status if exited else -status.si_status
            self._serve_until_silent()
        return Exit(
            code=status.si_status if exited else -1,
            signal=0 if exited else status.si_status,
            stdout=self._stdout.bytes(),
            stderr=self._stderr.bytes(),
            stdout_truncated=self._stdout.truncated,
            stderr_truncated=self._stderr.truncated,
            duration_s=time.monotonic() - started,
        )

    def kill(self) -> None:
        """End its whole process group at once, from any thread."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _watch(self, pidfd: int) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._selector.register(pidfd, selectors.EVENT_READ, self._nothing)
        self._selector.register(self._stop, selectors.EVENT_READ, self._woken)
        self._selector.register(process.stdout, selectors.EVENT_READ, lambda: self._read(process.stdout, "stdout", self._stdout))
        self._selector.register(process.stderr, selectors.EVENT_READ, lambda: self._read(process.stderr, "stderr", self._stderr))
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE, self._feed)

    def _serve_until_exit(self, pidfd: int) -> None:
        while True:
            timeout = max(0.0, self._kill_at - time.monotonic()) if self._kill_at else None
            ready = self._selector.select(timeout)
            for key, _ in ready:
                key.data()
            if self._kill_at and time.monotonic() >= self._kill_at:
                self.kill()
                self._kill_at = 0.0
            if any(key.fd == pidfd for key, _ in ready):
                self._selector.unregister(pidfd)
                return

    def _serve_until_silent(self) -> None:
        """Until both outputs are at their end: at once, unless a grandchild holds them open."""
        deadline = time.monotonic() + DRAIN_S
        outputs = (self._process.stdout, self._process.stderr)
        while any(pipe is not None and not pipe.closed for pipe in outputs):
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            for key, _ in ready:
                key.data()
            if time.monotonic() >= deadline:
                return

    def _read(self, pipe: IO[bytes] | None, stream: str, kept: Kept) -> None:
        assert pipe is not None
        data = os.read(pipe.fileno(), READ_BYTES)
        if not data:
            self._forget(pipe)
            return
        kept.add(data)
        self._emit(stream, data)

    def _feed(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            if self._pending:
                self._pending = self._pending[os.write(pipe.fileno(), self._pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending = self._pending[:0]
        if not self._pending:
            self._forget(pipe)

    def _woken(self) -> None:
        self._stop.calm()
        if is_init():
            reap_orphans(self._process.pid)
        if self._stop.requested and not self._kill_at:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + STOP_GRACE_S

    def _nothing(self) -> None:
        """The exit is noticed by the loop itself."""

    def _forget(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        pipe.close()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def lay_files(home: Path, files: dict[str, bytes]) -> None:
    """Write files into the private home, creating directories; raises AgentFailure if it cannot be."""
    try:
        for name, content in files.items():
            path = home / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise AgentFailure(_denied(f"the private home cannot be written: {error}.")) from error


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            launch.argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=launch.env,
            cwd=launch.cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise AgentFailure(_denied(_why_not_started(launch, error))) from error


def _why_not_started(launch: Launch, error: Exception) -> str:
    program = launch.argv[0]
    if isinstance(error, OSError) and error.filename == launch.cwd:
        return f"the workspace {launch.cwd} cannot be entered in the sandbox: {error.strerror}."
    if isinstance(error, FileNotFoundError):
        if "/" in program and os.path.exists(program):
            return f"`{program}` is in the sandbox, but its interpreter is not."
        return f"`{program}` is not in the sandbox; looked for in {launch.env.get('PATH', '')}."
    if isinstance(error, PermissionError):
        return f"`{program}` may not be executed in the sandbox."
    return f"`{program}` cannot be started: {error}."


def _denied(message: str) -> Failure:
    return Failure(
        code=ErrorCode.SANDBOX_DENIED,
        message=message,
        hint="Add its directory to `read_only_paths` of the agent, or put it into the workspace.",
        retriable=False,
    )
