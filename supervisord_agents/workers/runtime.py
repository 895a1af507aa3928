"""The worker: PID 1 of its sandbox, which runs tasks one after the other and speaks wire/frames.py on descriptor 3.

    python -I -m supervisord_agents.workers.runtime [DIRECTORY ...]

One thread, one loop: it receives frames, sends heartbeats, and watches the one process that does the task. Between tasks it ends
all other processes and empties the directories, which are private to the sandbox. If the daemon goes away, the task goes on, and
the worker waits to be handed the channel to a new daemon. How long it may, whoever made the sandbox decides.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import resource
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
from supervisord_agents.workers.reaper import alone_with, clear_out, is_init, reap_orphans
from supervisord_agents.workers.rooms import Rooms
from supervisord_agents.workers.uplink import Handover, Uplink
from supervisord_agents.workers.warmth import Warmth

EXIT_PROTOCOL = 65
"""The daemon sent what is no frame (EX_DATAERR of sysexits(3))."""
Job = ProgramJob | FunctionJob


class Runtime:
    """One worker process."""

    def __init__(self, uplink: Uplink, handover: Handover, outbox: Outbox, rooms: Rooms) -> None:
        self._uplink = uplink
        self._handover = handover
        self._outbox = outbox
        self._rooms = rooms
        self._warmth = Warmth(uplink.beat)
        self._selector = selectors.DefaultSelector()
        self._selector.register(uplink, selectors.EVENT_READ, self._on_readable)
        self._selector.register(handover, selectors.EVENT_READ, self._on_handover)
        self._queue: deque[frames.RunTask] = deque()
        self._job: Job | None = None
        self._spare: FunctionJob | None = None
        """Its process rests, for another task of the same graph."""
        self._not_to_begin = ("", 0)
        self._leaving = False
        self._alone = False
        """No daemon is there."""
        self._forsaken = False
        """No other can come."""

    def run(self) -> None:
        """Say hello and work until no daemon is there nor can come, or no other task can be taken."""
        if is_init():
            self._hear_of_the_dead()
        gc.collect()
        gc.freeze()  # what is there by now is shared with every fork as long as nobody writes to it
        self._uplink.hello()
        while self._job is not None or not self._leaving:
            self._turn()
            self._leaving = self._leaving or (self._alone and self._forsaken)

    def _hear_of_the_dead(self) -> None:
        """Be woken by every dying child: those whose parent has gone die unannounced otherwise."""
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def on_death() -> None:
            os.read(reading, 4096)
            known = self._job or self._spare
            reap_orphans(known.child.pid if known else 0)

        self._selector.register(reading, selectors.EVENT_READ, on_death)

    def _turn(self) -> None:
        due = min(self._uplink.next_beat, self._job.child.deadline if self._job else math.inf)
        for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
            # An earlier one of this round may have closed it.
            if key.fileobj in self._selector.get_map():
                key.data()
        now = time.monotonic()
        if now >= self._uplink.next_beat:
            self._uplink.beat()
        if self._job is not None:
            self._job.child.on_time(now)
            self._job.child.hold(self._uplink.full)
            if self._job.over:
                self._finish(self._job)
        if self._job is None and self._queue and not self._leaving:
            self._begin(self._queue.popleft())

    def _on_readable(self, flags: int = 0) -> bool:
        """Handle what has come; whether there may be more."""
        try:
            payloads = self._uplink.receive(flags)
            for payload in payloads or ():
                self._on_frame(frames.to_worker_decoder.decode(payload))
        except (ProtocolError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            self._die(EXIT_PROTOCOL, f"the daemon sent a frame that is not of the worker protocol: {error}")
        if payloads is None:
            self._selector.unregister(self._uplink)
            self._alone = True
        return not self._alone

    def _on_handover(self) -> None:
        try:
            channel = self._handover.receive()
        except (ProtocolError, OSError) as error:
            self._die(EXIT_PROTOCOL, f"no new channel: {error}")
        if channel is None:
            self._selector.unregister(self._handover)
            self._forsaken = True
            return
        # What the daemon before had still sent comes first: it may be a task.
        with contextlib.suppress(BlockingIOError):
            while not self._alone and self._on_readable(socket.MSG_DONTWAIT):
                pass
        if not self._alone:
            self._selector.unregister(self._uplink)
        if self._job is None and self._queue:
            self._begin(self._queue.popleft())
        self._alone = False
        self._uplink.move(channel)
        self._selector.register(self._uplink, selectors.EVENT_READ, self._on_readable)

    def _on_frame(self, message: frames.ToWorker) -> None:
        if isinstance(message, frames.RunTask):
            if message.workspace == frames.WORKSPACE_DIR:  # which is elsewhere in a sandbox without namespaces
                message = msgspec.structs.replace(message, workspace=os.environ.get("WORKSPACE", message.workspace))
            self._queue.append(message)
        elif isinstance(message, frames.Resume):
            self._uplink.resume(message.log_bytes)
        elif isinstance(message, frames.Answer):
            self._uplink.answered(message)
            if self._job is not None and _is_of(self._job, message):
                self._job.answer(message)
        elif self._job and _is_of(self._job, message):
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
        self._uplink.begin(task)
        if (task.task, task.attempt) == self._not_to_begin:
            failure = Failure(code=ErrorCode.CANCELLED, message="cancelled before it began.", retriable=False)
            self._end(task, Outcome(failure=failure))
            return
        try:
            self._job = self._start(task)
        except Exception as error:
            self._end(task, self._failed(task, error))

    def _start(self, task: frames.RunTask) -> Job:
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.go_on(task):
                return spare
            clear_out()
            spare.close()
        agent = load_agent(task.agent_class)
        if isinstance(agent, ProgramAgent):
            return ProgramJob(self._selector, self._uplink, agent, task)
        assert isinstance(agent, FunctionAgent)
        with self._warmth.of(agent.modules(task), task.workspace):
            return FunctionJob(self._selector, self._uplink, agent, task)

    def _finish(self, job: Job) -> None:
        rests = isinstance(job, FunctionJob) and job.rests and alone_with(job.child.pid)
        try:
            if not rests:
                clear_out()
            job.child.drain()
            outcome = job.outcome()
        except Exception as error:
            outcome = self._failed(job.task, error)
        if rests:
            assert isinstance(job, FunctionJob)
            self._spare = job
        else:
            job.close()
        self._job = None
        self._end(job.task, outcome)

    def _end(self, task: frames.RunTask, outcome: Outcome) -> None:
        frame = ending(task, outcome)
        payload = frames.encoder.encode(frame)
        self._outbox.put(payload)
        try:
            if self._spare is None:
                clear_out()
            self._rooms.clear_up()
            self._warmth.check()
        except OSError as error:
            self._uplink.log("worker", f"this worker ends, for it cannot clear up: {error}.\n".encode())
            payload = frames.encoder.encode(msgspec.structs.replace(frame, last=True))
            self._leaving = True
        self._uplink.end(payload)

    def _failed(self, task: frames.RunTask, error: Exception) -> Outcome:
        """What an exception outside of the task's own code means."""
        if isinstance(error, AgentFailure):
            return Outcome(failure=error.failure)
        if isinstance(error, SupervisorError):
            return Outcome(failure=Failure(code=error.code, message=str(error), retriable=False))
        if isinstance(error, OSError):
            message = f"the sandbox has no room for its process: {error}."
            return Outcome(failure=Failure(code=ErrorCode.INTERNAL, message=message))
        self._uplink.log("worker", traceback.format_exc().encode("utf-8", "backslashreplace"))
        message = f"the agent `{task.spec.agent}` is broken: {type(error).__qualname__}: {error}"
        return Outcome(failure=Failure(code=ErrorCode.INTERNAL, message=message, retriable=False))


def _is_of(job: Job, message: frames.CancelTask | frames.Answer) -> bool:
    return (job.task.task, job.task.attempt) == (message.task, message.attempt)


def load_agent(path: str) -> Agent:
    """A new agent of the class `module:Class`; raises AgentFailure if the sandbox has no such class."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"the agent class `{path}` cannot be imported in the sandbox: {error}."
        hint = "Install its package where the supervisor is installed, or add its directory to the `paths` of a profile."
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
    # Message queues would outlive a task, and there is no way to list them.
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
    for descriptor in (frames.CHANNEL_FD, frames.HANDOVER_FD):
        os.set_inheritable(descriptor, False)
    sys.dont_write_bytecode = True  # no __pycache__ in the user's workspace
    sys.argv = [""]
    for stream in (sys.stdout, sys.stderr):  # as functions find them, which lead into pipes there
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    uplink = Uplink(socket.socket(fileno=frames.CHANNEL_FD))
    handover = Handover(socket.socket(fileno=frames.HANDOVER_FD))
    Runtime(uplink, handover, Outbox(frames.OUTBOX_FD), Rooms(arguments)).run()
    os._exit(0)  # whatever a module has left for the end of the interpreter


if __name__ == "__main__":
    main(sys.argv[1:])
