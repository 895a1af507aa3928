"""The worker: PID 1 of its sandbox, which runs tasks one after the other and speaks wire/frames.py on descriptor 3.

The main thread runs the tasks; a second one receives frames and sends heartbeats, a third passes on what functions print. If the
daemon goes away, a running task has ORPHAN_GRACE_ENV seconds to end; its end then lies in the outbox only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

import msgspec
import prctl

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode, ProtocolError, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.base import Agent, AgentFailure, FunctionAgent, Outcome, ProgramAgent
from supervisord_agents.workers.agents.environment import TASK_FILE, task_file
from supervisord_agents.workers.capture import Capture
from supervisord_agents.workers.child import Child, Stop, lay_files
from supervisord_agents.workers.ending import ending
from supervisord_agents.workers.footprint import Footprint
from supervisord_agents.workers.outbox import Outbox
from supervisord_agents.workers.reaper import clear_out
from supervisord_agents.workers.uplink import AttemptReporter, Uplink

WORKER_DIR_ENV = "AGENT_SUPERVISOR_WORKER_DIR"
"""Overrides frames.WORKER_DIR."""
ORPHAN_GRACE_ENV = "AGENT_SUPERVISOR_ORPHAN_GRACE_S"
DEFAULT_ORPHAN_GRACE_S = 0.5
EXIT_PROTOCOL = 65
"""The daemon sent what is no frame (EX_DATAERR of sysexits(3))."""
EXIT_ORPHANED = 69
"""The daemon went away and the task did not end in time (EX_UNAVAILABLE)."""


class Runtime:
    """One worker process."""

    def __init__(self, sock: socket.socket, worker_dir: Path, orphan_grace_s: float) -> None:
        self._uplink = Uplink(sock)
        self._outbox = Outbox(worker_dir)
        self._orphan_grace_s = orphan_grace_s
        self._queue: queue.SimpleQueue[frames.RunTask | None] = queue.SimpleQueue()
        self._reporter: AttemptReporter | None = None
        self._child: Child | None = None
        self._stop = Stop()
        self._console = os.dup(2)
        self._capture = Capture(self._emit)
        self._leaving = False

    def run(self) -> None:
        """Say hello and work until told to leave."""
        self._uplink.send(frames.WorkerHello(pid=os.getpid()))
        threading.Thread(target=self._listen, name="uplink", daemon=True).start()
        while not self._leaving:
            task = self._queue.get()
            if task is None:
                return
            self._perform(task)

    def _listen(self) -> None:
        try:
            while (payloads := self._uplink.receive()) is not None:
                for payload in payloads:
                    self._on_frame(frames.to_worker_decoder.decode(payload))
        except (ProtocolError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            self._die(EXIT_PROTOCOL, f"the daemon sent a frame that is not of the worker protocol: {error}")
        self._on_orphaned()

    def _on_frame(self, message: frames.ToWorker) -> None:
        if isinstance(message, frames.RunTask):
            self._queue.put(message)
        elif isinstance(message, frames.Shutdown):
            self._queue.put(None)
        else:
            reporter = self._reporter
            if reporter is not None and (reporter.task, reporter.attempt) == (message.task, message.attempt):
                self._stop.request()

    def _on_orphaned(self) -> None:
        self._queue.put(None)
        timer = threading.Timer(self._orphan_grace_s, self._die, (EXIT_ORPHANED, "the daemon has gone"))
        timer.daemon = True
        timer.start()

    def _die(self, code: int, message: str) -> NoReturn:
        """Exit at once, whatever the main thread is in; as PID 1 this ends everything in the sandbox."""
        with contextlib.suppress(OSError):
            os.write(self._console, f"worker {os.getpid()}: {message}\n".encode("utf-8", "backslashreplace"))
        if self._child is not None:
            self._child.kill()
        os._exit(code)

    def _emit(self, stream: str, data: bytes) -> None:
        if self._reporter is not None:
            self._reporter.output(stream, data)

    def _perform(self, task: frames.RunTask) -> None:
        self._stop.clear()
        self._reporter = reporter = AttemptReporter(self._uplink, task.task, task.attempt)
        try:
            outcome = self._outcome(task, reporter)
        except AgentFailure as error:
            outcome = Outcome(failure=error.failure)
        except SupervisorError as error:
            outcome = Outcome(failure=Failure(code=error.code, message=str(error), retriable=False))
        except Exception as error:
            reporter.log(traceback.format_exc())
            message = f"the agent `{task.spec.agent}` is broken: {type(error).__qualname__}: {error}"
            outcome = Outcome(failure=Failure(code=ErrorCode.INTERNAL, message=message, retriable=False))
        clear_out()
        self._capture.drain()
        self._capture.reset()
        self._reporter = None
        frame = ending(task, outcome)
        self._outbox.put(frame)
        self._uplink.send(frame)

    def _outcome(self, task: frames.RunTask, reporter: AttemptReporter) -> Outcome:
        agent = load_agent(task.agent_class)
        if isinstance(agent, FunctionAgent):
            return self._call(agent, task, reporter)
        assert isinstance(agent, ProgramAgent)
        return self._run_program(agent, task, reporter)

    def _call(self, agent: FunctionAgent, task: frames.RunTask, reporter: AttemptReporter) -> Outcome:
        try:
            footprint = Footprint(task.workspace)
        except OSError as error:
            message = f"the workspace {task.workspace} cannot be entered in the sandbox: {error.strerror}."
            raise AgentFailure(Failure(code=ErrorCode.SANDBOX_DENIED, message=message, retriable=False)) from error
        try:
            return agent.call(task, reporter)
        finally:
            left = footprint.restore()
            if left:
                names = ", ".join(thread.name for thread in left)
                reporter.log(f"the function left {len(left)} thread(s) running ({names}): this worker ends after the task.")
                self._leaving = True

    def _run_program(self, agent: ProgramAgent, task: frames.RunTask, reporter: AttemptReporter) -> Outcome:
        home = Path(os.environ.get("HOME", "/tmp"))
        launch = agent.launch(task, home)
        lay_files(home, {**launch.files, TASK_FILE: task_file(task)})
        self._child = Child(launch, reporter.output, self._stop)
        try:
            exit = self._child.run()
        finally:
            self._child = None
        outcome = agent.read(task, exit)
        if not self._stop.requested:
            return outcome
        failure = Failure(code=ErrorCode.CANCELLED, message=f"cancelled: the program {exit.how}.", retriable=False)
        return msgspec.structs.replace(outcome, failure=failure)


def load_agent(path: str) -> Agent:
    """A new agent of the class `module:Class`; raises AgentFailure if the sandbox has no such class."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"the agent class `{path}` cannot be imported in the sandbox: {error}."
        hint = "Install its package where the supervisor is installed, or add its directory to `sandbox.read_only_paths`."
        raise AgentFailure(Failure(code=ErrorCode.SANDBOX_DENIED, message=message, hint=hint, retriable=False)) from error
    if not (isinstance(found, type) and issubclass(found, FunctionAgent | ProgramAgent)):
        message = f"`{path}` is neither a ProgramAgent nor a FunctionAgent."
        raise AgentFailure(Failure(code=ErrorCode.INVALID, message=message, retriable=False))
    agent: Agent = found()
    return agent


def main() -> None:
    """Entry point of `python -I -m supervisord_agents.workers.runtime`."""
    # Children run under the same uid: without this they could read this process's memory and open its descriptors (prctl(2)).
    prctl.set_dumpable(0)
    os.set_inheritable(frames.CHANNEL_FD, False)
    sys.dont_write_bytecode = True  # no __pycache__ in the user's workspace
    runtime = Runtime(
        socket.socket(fileno=frames.CHANNEL_FD),
        Path(os.environ.get(WORKER_DIR_ENV, frames.WORKER_DIR)),
        float(os.environ.get(ORPHAN_GRACE_ENV, DEFAULT_ORPHAN_GRACE_S)),
    )
    runtime.run()
    # Threads that a function left behind must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
