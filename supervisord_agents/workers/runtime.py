"""The worker: PID 1 of its sandbox, which runs tasks one after the other and speaks wire/frames.py on descriptor 3.

    python -I -m supervisord_agents.workers.runtime ORPHAN_GRACE_S [DIRECTORY ...]

One thread, one loop: it receives frames, sends heartbeats, and watches the one process that does the task. Between tasks it ends
all other processes and empties the directories, which are private to the sandbox. If the daemon goes away, a running task has
ORPHAN_GRACE_S seconds to end; its end then lies in the outbox only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

import msgspec
import prctl

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode, ProtocolError, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.base import Agent, AgentFailure, FunctionAgent, Outcome, ProgramAgent
from supervisord_agents.workers.call import FunctionJob
from supervisord_agents.workers.ending import ending
from supervisord_agents.workers.outbox import Outbox
from supervisord_agents.workers.program import ProgramJob
from supervisord_agents.workers.reaper import clear_out, is_init, reap_orphans
from supervisord_agents.workers.rooms import Rooms
from supervisord_agents.workers.uplink import Uplink
from supervisord_agents.workers.warmth import Warmth

EXIT_PROTOCOL = 65
"""The daemon sent what is no frame (EX_DATAERR of sysexits(3))."""
EXIT_ORPHANED = 69
"""The daemon went away and the task did not end in time (EX_UNAVAILABLE)."""
Job = ProgramJob | FunctionJob


class Runtime:
    """One worker process."""

    def __init__(self, uplink: Uplink, outbox: Outbox, rooms: Rooms, orphan_grace_s: float) -> None:
        self._uplink = uplink
        self._outbox = outbox
        self._rooms = rooms
        self._orphan_grace_s = orphan_grace_s
        self._warmth = Warmth(uplink.beat)
        self._selector = selectors.DefaultSelector()
        self._selector.register(uplink, selectors.EVENT_READ, self._on_readable)
        self._queue: deque[frames.RunTask] = deque()
        self._job: Job | None = None
        self._not_to_begin = ("", 0)
        self._leaving = False
        self._die_at = math.inf

    def run(self) -> None:
        """Say hello and work until the daemon has gone, or no other task can be taken."""
        if is_init():
            self._hear_of_the_dead()
        gc.collect()
        gc.freeze()  # what is there by now is shared with every fork as long as nobody writes to it
        self._uplink.send(frames.WorkerHello(version=frames.WORKER_PROTOCOL_VERSION, pid=os.getpid()))
        while self._job is not None or not self._leaving:
            self._turn()

    def _hear_of_the_dead(self) -> None:
        """Be woken by every dying child: those whose parent has gone die unannounced otherwise."""
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def on_death() -> None:
            os.read(reading, 4096)
            reap_orphans(self._job.child.pid if self._job else 0)

        self._selector.register(reading, selectors.EVENT_READ, on_death)

    def _turn(self) -> None:
        due = min(self._uplink.next_beat, self._die_at, self._job.child.deadline if self._job else math.inf)
        for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
            # An earlier one of this round may have closed it.
            if key.fileobj in self._selector.get_map():
                key.data()
        now = time.monotonic()
        if now >= self._uplink.next_beat:
            self._uplink.beat()
        if self._job is not None:
            self._job.child.on_time(now)
            if self._job.child.over:
                self._finish(self._job)
        if now >= self._die_at and self._job is not None:
            self._die(EXIT_ORPHANED, "the daemon has gone")
        if self._job is None and self._queue and not self._leaving:
            self._begin(self._queue.popleft())

    def _on_readable(self) -> None:
        try:
            payloads = self._uplink.receive()
            for payload in payloads or ():
                self._on_frame(frames.to_worker_decoder.decode(payload))
        except (ProtocolError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            self._die(EXIT_PROTOCOL, f"the daemon sent a frame that is not of the worker protocol: {error}")
        if payloads is None:
            self._selector.unregister(self._uplink)
            self._leaving = True
            self._die_at = time.monotonic() + self._orphan_grace_s

    def _on_frame(self, message: frames.ToWorker) -> None:
        if isinstance(message, frames.RunTask):
            self._queue.append(message)
        elif self._job and (self._job.task.task, self._job.task.attempt) == (message.task, message.attempt):
            self._job.child.stop()
        else:
            self._not_to_begin = (message.task, message.attempt)

    def _die(self, code: int, message: str) -> NoReturn:
        """Exit at once; as PID 1 this ends everything in the sandbox."""
        with contextlib.suppress(OSError):
            os.write(2, f"worker {os.getpid()}: {message}\n".encode("utf-8", "backslashreplace"))
        if self._job is not None:
            self._job.child.kill()
        os._exit(code)

    def _begin(self, task: frames.RunTask) -> None:
        if (task.task, task.attempt) == self._not_to_begin:
            failure = Failure(code=ErrorCode.CANCELLED, message="cancelled before it began.", retriable=False)
            self._end(task, Outcome(failure=failure))
            return
        try:
            self._job = self._start(task)
        except Exception as error:
            self._end(task, self._failed(task, error))

    def _start(self, task: frames.RunTask) -> Job:
        agent = load_agent(task.agent_class)
        if isinstance(agent, ProgramAgent):
            return ProgramJob(self._selector, self._uplink, agent, task)
        assert isinstance(agent, FunctionAgent)
        with self._warmth.of(agent.modules(task), task.workspace):
            return FunctionJob(self._selector, self._uplink, agent, task)

    def _finish(self, job: Job) -> None:
        try:
            clear_out()
            job.child.drain()
            outcome = job.outcome()
        except Exception as error:
            outcome = self._failed(job.task, error)
        job.child.close()
        self._job = None
        self._end(job.task, outcome)

    def _end(self, task: frames.RunTask, outcome: Outcome) -> None:
        frame = ending(task, outcome)
        payload = frames.encoder.encode(frame)
        self._outbox.put(payload)
        try:
            clear_out()
            self._rooms.clear_up()
            self._warmth.check()
        except OSError as error:
            self._uplink.log(task, "worker", f"this worker ends, for it cannot clear up: {error}.\n".encode())
            payload = frames.encoder.encode(msgspec.structs.replace(frame, last=True))
            self._leaving = True
        self._uplink.send_payload(payload)

    def _failed(self, task: frames.RunTask, error: Exception) -> Outcome:
        """What an exception outside of the task's own code means."""
        if isinstance(error, AgentFailure):
            return Outcome(failure=error.failure)
        if isinstance(error, SupervisorError):
            return Outcome(failure=Failure(code=error.code, message=str(error), retriable=False))
        if isinstance(error, OSError):
            message = f"the sandbox has no room for its process: {error}."
            return Outcome(failure=Failure(code=ErrorCode.INTERNAL, message=message))
        self._uplink.log(task, "worker", traceback.format_exc().encode("utf-8", "backslashreplace"))
        message = f"the agent `{task.spec.agent}` is broken: {type(error).__qualname__}: {error}"
        return Outcome(failure=Failure(code=ErrorCode.INTERNAL, message=message, retriable=False))


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


def main(arguments: Sequence[str]) -> None:
    """Entry point; the arguments are in the module's description."""
    # Children run under the same uid: without this they could read this process's memory and open its descriptors (prctl(2)).
    prctl.set_dumpable(0)
    os.set_inheritable(frames.CHANNEL_FD, False)
    sys.dont_write_bytecode = True  # no __pycache__ in the user's workspace
    sys.argv = [""]
    for stream in (sys.stdout, sys.stderr):  # as functions find them, which lead into pipes there
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    grace, *directories = arguments
    uplink = Uplink(socket.socket(fileno=frames.CHANNEL_FD))
    Runtime(uplink, Outbox(frames.OUTBOX_FD), Rooms(directories), float(grace)).run()
    os._exit(0)  # whatever a module has left for the end of the interpreter


if __name__ == "__main__":
    main(sys.argv[1:])
