"""A worker runtime as a plain process on a real socketpair, with the test in the place of the daemon."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.workers.uplink import hand_over

PATIENCE_S = 20.0
COMMAND = "supervisord_agents.workers.agents.command:CommandAgent"
PYTHON = "supervisord_agents.workers.agents.python:PythonAgent"
RUNTIME = (sys.executable, "-I", "-m", "supervisord_agents.workers.runtime")
AS_PID_1 = ("/usr/bin/unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
End = frames.TaskResult | frames.TaskError
FrameT = TypeVar("FrameT")


class RuntimeProcess:
    """One runtime; `frames` are all it has sent so far."""

    def __init__(
        self,
        directory: Path,
        *,
        prefix: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.workspace = directory / "workspace"
        self.home = directory / "home"
        self.outbox = directory / "outbox"
        for path in (self.workspace, self.home):
            path.mkdir(exist_ok=True)
        self.frames: list[frames.FromWorker] = []
        self._stderr = directory / "stderr"
        self._reader = FrameReader()
        self._read = 0
        self._status: int | None = None
        self._closed = False
        self.socket, theirs = socket.socketpair()
        self._handover, handed = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            **(environment or {}),
        }
        argv = (*prefix, *RUNTIME)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(self._stderr), os.O_WRONLY | os.O_CREAT, 0o600),
            # Above all that is put into place, so that neither overwrites the other.
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 200),
            (os.POSIX_SPAWN_DUP2, handed.fileno(), frames.HANDOVER_FD),
            (os.POSIX_SPAWN_DUP2, 200, frames.CHANNEL_FD),
            (os.POSIX_SPAWN_CLOSE, 200),
            (os.POSIX_SPAWN_OPEN, frames.OUTBOX_FD, str(self.outbox), os.O_WRONLY | os.O_CREAT, 0o600),
        ]
        self.pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
        self._pidfd = os.pidfd_open(self.pid)
        theirs.close()
        handed.close()

    def leave(self, *, for_ever: bool = False) -> None:
        """The daemon goes away; `for_ever`: and the fork server, so that no other can come."""
        self.socket.close()
        if for_ever:
            self._handover.close()

    def come_back(self) -> frames.WorkerHello:
        """A new daemon hands the worker a new channel, and hears its hello."""
        self.socket.close()
        self.socket, theirs = socket.socketpair()
        with theirs:
            hand_over(self._handover.fileno(), theirs.fileno())
        self._reader = FrameReader()
        self.frames, self._read = [], 0
        return self.next(frames.WorkerHello)

    def send(self, message: frames.ToWorker) -> None:
        self.socket.sendall(frame(frames.encoder.encode(message)))

    def start(self, **values: Any) -> frames.RunTask:
        """Send a task; `input` and `agent` belong to its spec, the rest to the frame."""
        agent = values.pop("agent", "command")
        task = frames.RunTask(
            task=values.pop("task", "g1.t1"),
            attempt=values.pop("attempt", 1),
            spec=TaskSpec(agent=agent, input=values.pop("input")),
            agent_class=values.pop("agent_class", PYTHON if agent == "python" else COMMAND),
            workspace=values.pop("workspace", str(self.workspace)),
            **values,
        )
        self.send(task)
        return task

    def next(self, kind: type[FrameT]) -> FrameT:
        """The next frame of a kind; those before it stay in `frames`."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            while self._read < len(self.frames):
                self._read += 1
                if isinstance(found := self.frames[self._read - 1], kind):
                    return found
            self._receive(deadline)

    def run(self, **values: Any) -> End:
        """A task from start to end."""
        self.start(**values)
        return self.next(frames.TaskResult | frames.TaskError)  # type: ignore[arg-type]

    def command(self, *argv: str, **values: Any) -> End:
        return self.run(input={"argv": list(argv), **values.pop("more", {})}, **values)

    def python(self, function: str, *args: Any, **values: Any) -> End:
        return self.run(agent="python", input={"function": function, "args": list(args)}, **values)

    def module(self, name: str, source: str) -> None:
        """Lay a module into the workspace."""
        (self.workspace / f"{name}.py").write_text(textwrap.dedent(source))

    def log(self, stream: str = "") -> bytes:
        """What has come as log."""
        found = [item.data for item in self.frames if isinstance(item, frames.Log) and stream in ("", item.stream)]
        return b"".join(found)

    def wait(self) -> int:
        """The exit code (negative: the signal), when it has ended."""
        if self._status is None:
            assert select.select([self._pidfd], [], [], PATIENCE_S)[0], "the runtime did not end"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def close(self) -> None:
        self.socket.close()
        self._handover.close()
        if self._closed:
            return
        self._closed = True
        if self._status is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.wait()
        os.close(self._pidfd)

    def _receive(self, deadline: float) -> None:
        self.socket.settimeout(max(0.01, deadline - time.monotonic()))
        data = self.socket.recv(1 << 20)
        assert data, f"the runtime closed the channel: {self.stderr}"
        self.frames += [frames.from_worker_decoder.decode(payload) for payload in self._reader.feed(data)]


Make = Callable[..., RuntimeProcess]
