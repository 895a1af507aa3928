"""An attempt of a ProgramAgent: its program, from start to end."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from pathlib import Path

import msgspec

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.base import AgentFailure, Exit, Launch, Outcome, ProgramAgent
from supervisord_agents.workers.agents.environment import STEP_PROGRAM, STEP_SOCKET, TASK_FILE, step_program, task_file
from supervisord_agents.workers.child import Child, Kept, cancelled
from supervisord_agents.workers.step_desk import StepDesk
from supervisord_agents.workers.uplink import Uplink


class ProgramJob:
    """A running program. Raises AgentFailure if it cannot be started."""

    def __init__(self, selector: selectors.BaseSelector, uplink: Uplink, agent: ProgramAgent, task: frames.RunTask) -> None:
        self.task = task
        self._agent = agent
        home = Path(os.environ.get("HOME", "/tmp"))
        launch = agent.launch(task, home)
        lay_files(home, {**launch.files, TASK_FILE: task_file(task), STEP_PROGRAM: step_program()})
        self._stdout = Kept(launch.keep_stdout_bytes, tail=launch.keep_stdout_tail)
        self._stderr = Kept(launch.keep_stderr_bytes, tail=True)
        self._started = time.monotonic()
        self._desk = _desk(selector, uplink, task, home)
        try:
            process = _start(launch)
        except AgentFailure:
            self.close_desk()
            raise
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.child = Child(selector, process.pid)
        self.child.feed(_taken(process.stdin.fileno()), launch.stdin)
        for pipe, kept, stream in ((process.stdout, self._stdout, "stdout"), (process.stderr, self._stderr, "stderr")):
            self.child.read(_taken(pipe.fileno()), _Tee(kept, uplink, stream))
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        process.returncode = 0  # it is waited for by Child: the object must not do so when it is collected

    @property
    def over(self) -> bool:
        return self.child.over

    def answer(self, answer: frames.Answer) -> None:
        """Tell it what became of a checkpoint; programs ask for nothing else."""
        if self._desk is not None and isinstance(answer, frames.Checkpointed):
            self._desk.answer(answer)

    def close(self) -> None:
        self.close_desk()
        self.child.close()

    def close_desk(self) -> None:
        """Hear of no more steps."""
        if self._desk is not None:
            self._desk.close()
            self._desk = None

    def outcome(self) -> Outcome:
        """What its end means."""
        outcome = self._agent.read(
            self.task,
            Exit(
                code=self.child.code,
                signal=self.child.signal,
                stdout=self._stdout.bytes(),
                stderr=self._stderr.bytes(),
                stdout_truncated=self._stdout.truncated,
                stderr_truncated=self._stderr.truncated,
                duration_s=time.monotonic() - self._started,
            ),
        )
        if self.child.stop_requested:
            return msgspec.structs.replace(outcome, failure=cancelled(self.child, "program"))
        return outcome


def _desk(selector: selectors.BaseSelector, uplink: Uplink, task: frames.RunTask, home: Path) -> StepDesk | None:
    """None where there can be none, as in a home whose path is too long for a socket."""
    try:
        os.chmod(home / STEP_PROGRAM, 0o755)
        return StepDesk(selector, uplink, task, home / STEP_SOCKET)
    except OSError as error:
        uplink.log("worker", f"this task cannot tell of its steps: {error}.\n".encode())
        return None


class _Tee:
    """Output of a stream: kept for the agent, and on its way into the log."""

    def __init__(self, kept: Kept, uplink: Uplink, stream: str) -> None:
        self._kept = kept
        self._uplink = uplink
        self._stream = stream

    def __call__(self, data: bytes) -> None:
        self._kept.add(data)
        self._uplink.log(self._stream, data)


def _taken(descriptor: int) -> int:
    """A copy that outlives the object whose descriptor it is."""
    return os.dup(descriptor)


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
