"""What workers are told, and what they say: their frames, as the daemon understands them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode, ProtocolError
from supervisord_agents.wire import frames
from supervisord_agents.workers.listener import Listener
from supervisord_agents.workers.overhead import Overhead
from supervisord_agents.workers.worker import PROGRESS_S, Phase, Progress, Worker

MAX_STRAYS = 100
"""Frames of attempts that a worker does not have; one that sends more is ended."""
log = structlog.get_logger()


class Dialogue:
    """One for all workers; what has to be remembered of one is the Worker's."""

    def __init__(self, listener: Listener, finished: Callable[[Worker, frames.End], None], overhead: Overhead) -> None:
        """`finished` is called with the end of the attempt that a worker has."""
        self._listener = listener
        self._finished = finished
        self._overhead = overhead

    def deliver(self, worker: Worker, message: frames.RunTask) -> None:
        assert worker.channel is not None
        worker.message = None
        if worker.gate is not None:
            worker.gate.task = message.task
        try:
            worker.channel.send(message)
            worker.told = True
            if worker.claimed_at:  # else another daemon did
                self._overhead.told(time.monotonic() - worker.claimed_at)
        except ProtocolError as error:
            self.died(worker, Failure(code=ErrorCode.INVALID, message=str(error), retriable=False))
            self.rest(worker)

    def heard(self, worker: Worker, frame: frames.FromWorker) -> None:
        """Handle a frame; whatever is raised ends the worker."""
        worker.last_sign = time.monotonic()
        if isinstance(frame, frames.WorkerHello):
            self._arrived(worker, frame)
        elif not worker.ready:
            raise ProtocolError(f"the worker sent {type(frame).__name__} before its hello.")
        elif isinstance(frame, frames.Heartbeat):
            return
        elif not worker.told or not worker.busy_with(frame.task, frame.attempt):
            self._stray(worker, frame.task, frame.attempt)
        elif isinstance(frame, frames.End):
            self._finished(worker, frame)  # also of one that was killed meanwhile: the work is done
        elif worker.phase is Phase.DYING:
            return
        elif isinstance(frame, frames.Progress):
            self._progressed(worker, frame)
        else:
            self._listener.attempt_said(frame)

    def died(self, worker: Worker, failure: Failure) -> None:
        task, attempt = worker.task, worker.attempt
        worker.forget_attempt()
        self._listener.attempt_died(task, attempt, failure)

    def rest(self, worker: Worker) -> None:
        """Back to the idle ones."""
        if worker.phase is Phase.BUSY:
            worker.phase = Phase.IDLE
            worker.idle_since = time.monotonic()
            self._listener.slots_changed()

    def say_held(self, progress: Progress) -> None:
        held = progress.take()
        if held is not None:
            self._listener.attempt_said(held)

    def _arrived(self, worker: Worker, hello: frames.WorkerHello) -> None:
        if worker.ready:
            raise ProtocolError("the worker said hello again.")
        if hello.version != frames.WORKER_PROTOCOL_VERSION:
            raise ProtocolError(f"the worker speaks version {hello.version} of the worker protocol.")
        worker.ready = True
        if worker.phase is Phase.DYING:
            return
        worker.phase = Phase.BUSY if worker.task else Phase.IDLE
        worker.idle_since = time.monotonic()
        if worker.adopted:
            self._resume(worker, hello)
        elif worker.message is not None:
            self.deliver(worker, worker.message)

    def _resume(self, worker: Worker, hello: frames.WorkerHello) -> None:
        """Go on with the attempt that a worker of an earlier daemon has, or should have."""
        if not worker.task:
            if hello.task:
                worker.kill()  # it has done work before, of which nothing more is known here
            self._listener.slots_changed()
            return
        told = worker.busy_with(hello.task, hello.attempt)
        log_bytes = self._listener.attempt_found(worker.task, worker.attempt, told=told)
        if told and worker.channel is not None:
            worker.told = True
            if worker.gate is not None:
                worker.gate.task = worker.task
            worker.channel.send(frames.Resume(task=worker.task, attempt=worker.attempt, log_bytes=log_bytes))

    def _stray(self, worker: Worker, task: str, attempt: int) -> None:
        if worker.phase is Phase.DYING:
            return
        worker.strays += 1
        if worker.strays == 1:
            log.warning("frame_of_another_attempt", worker=worker.id, task=task[:100], attempt=attempt)
        if worker.strays > MAX_STRAYS:
            raise ProtocolError(f"the worker sent more than {MAX_STRAYS} frames of attempts that it does not have.")

    def _progressed(self, worker: Worker, report: frames.Progress) -> None:
        progress = worker.progress
        waits = progress.held is not None
        if progress.offer(report):
            self._listener.attempt_said(report)
        elif not waits:
            asyncio.get_running_loop().call_later(PROGRESS_S, self.say_held, progress)
