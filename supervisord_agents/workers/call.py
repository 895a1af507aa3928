"""An attempt of a FunctionAgent: the function runs in a fork of the warm runtime, and speaks to it through a pipe.

The fork has neither the channel nor the outbox. What comes out of the pipe is untrusted like all that a task does: it is decoded,
bounded and put into frames of this very attempt by the runtime. An agent may let one fork do several tasks of a graph in turn.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import msgspec
import prctl

from supervisord_agents.core.checkpoints import refuse_large
from supervisord_agents.core.model import Failure, Usage
from supervisord_agents.errors import ErrorCode, InvalidInput, ProtocolError, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.workers.agents.base import AgentFailure, FunctionAgent, Outcome, Wait
from supervisord_agents.workers.child import Child, cancelled
from supervisord_agents.workers.children import Waiting
from supervisord_agents.workers.ending import clean_message, ending, sane
from supervisord_agents.workers.orders import ORDER_BYTES, Orders
from supervisord_agents.workers.uplink import LOG_FRAME_BYTES, Uplink

REPORT_FD = 3
"""In the fork, in place of the channel."""
ORDER_FD = 4
"""In the fork: where its next tasks come from, and the answers to what it asks."""
MAX_FD = 65_536
EXIT_BROKEN = 70
"""Of the fork: what is around the function failed, not the function (EX_SOFTWARE of sysexits(3))."""
Report = frames.Progress | frames.Log | frames.UsageReport | frames.Question | frames.End
_report_decoder = msgspec.msgpack.Decoder(Report)


class FunctionJob:
    """A running function. Raises OSError if there can be no process for it."""

    def __init__(self, selector: selectors.BaseSelector, uplink: Uplink, agent: FunctionAgent, task: frames.RunTask) -> None:
        self.task = task
        self._uplink = uplink
        self._reader = FrameReader(frames.MAX_FRAME_BYTES)
        self._end: frames.End | None = None
        self._broken = ""
        left = agent.tasks_per_process(task)
        with contextlib.ExitStack() as on_failure:
            pipes = [_pipe(on_failure) for _ in range(3)]
            orders, self._orders = _pipe(on_failure)
            os.set_blocking(self._orders, False)
            pid = os.fork()
            if pid == 0:
                _become(agent, task, [writing for _, writing in pipes], orders, left)
            on_failure.pop_all()
        (stdout, stderr, reports), writing = zip(*pipes, strict=True)
        for descriptor in (*writing, orders):
            os.close(descriptor)
        self.child = Child(selector, pid, drain_s=0.0)
        self.child.read(stdout, lambda data: uplink.log("stdout", data))
        self.child.read(stderr, lambda data: uplink.log("stderr", data))
        self.child.read(reports, self._hear)

    @property
    def over(self) -> bool:
        """The function has ended, whether its process has or not."""
        return self.rests or self.child.over

    @property
    def rests(self) -> bool:
        """The process has done its task, and could do another."""
        return self._end is not None and not self._end.last and not self.child.stop_requested

    def go_on(self, task: frames.RunTask) -> bool:
        """Have the resting process do this task; False if it is not one for it."""
        before, order = self.task, frame(frames.encoder.encode(task), frames.MAX_FRAME_BYTES)
        fits = (
            _graph(task) == _graph(before)
            and (task.agent_class, task.settings, task.workspace) == (before.agent_class, before.settings, before.workspace)
            and len(order) <= ORDER_BYTES
        )
        if not fits or self.child.over:
            return False
        if not self._order(order):
            return False
        self.task, self._end, self._broken = task, None, ""
        return True

    def answer(self, answer: frames.Answer) -> None:
        """Tell it what became of what it asked for."""
        if not self._order(frame(frames.encoder.encode(answer), frames.MAX_FRAME_BYTES)) and not self.child.over:
            self._broken = "it does not read the answers to what it asked"
            self.child.kill()

    def _order(self, order: bytes) -> bool:
        """Whether the pipe took it."""
        try:
            return os.write(self._orders, order) == len(order)
        except OSError:  # it has ended, or does not read
            return False

    def close(self) -> None:
        """Let go of the process, which ends if it rests."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1
        self.child.close()

    def outcome(self) -> Outcome:
        """What the function came to, by its own word or by how its process ended."""
        outcome = self._said()
        if self.child.stop_requested:
            return msgspec.structs.replace(outcome, failure=cancelled(self.child, "function"))
        return outcome

    def _said(self) -> Outcome:
        end = self._end
        if isinstance(end, frames.Yield):
            return Outcome(wait=Wait(state=end.state, fail_fast=end.fail_fast), usage=end.usage)
        if end is not None:
            failure = end.failure if isinstance(end, frames.TaskError) else None
            return Outcome(output=end.output, usage=end.usage, failure=failure, truncated=end.truncated)
        if self._broken:
            message = f"the process of the function sent what is no report: {clean_message(self._broken)}"
            return Outcome(failure=Failure(code=ErrorCode.WORKER_FAILED, message=message))
        message = f"the process of the function {self.child.how} without a result."
        return Outcome(failure=Failure(code=ErrorCode.WORKER_DIED, message=message))

    def _hear(self, data: bytes) -> None:
        progress: frames.Progress | None = None
        try:
            for payload in () if self._broken else self._reader.feed(data):
                report = _report_decoder.decode(payload)
                if self._end is not None:
                    break
                if isinstance(report, frames.Progress):
                    progress = report  # of many at a time the last one is enough
                else:
                    self._pass_on(progress)
                    progress = None
                    self._take(report)
        except (ProtocolError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            self._broken = str(error)
            self.child.kill()
        self._pass_on(progress)

    def _take(self, report: frames.Log | frames.UsageReport | frames.Question | frames.End) -> None:
        if isinstance(report, frames.Log):
            self._uplink.log("worker", report.data)
        elif isinstance(report, frames.UsageReport):
            usage = frames.UsageReport(task=self.task.task, attempt=self.task.attempt, usage=report.usage)
            self._uplink.report(usage)
        elif isinstance(report, frames.Question):
            self._uplink.ask(msgspec.structs.replace(report, task=self.task.task, attempt=self.task.attempt))
        else:
            self._end = report
            if report.last:
                self.child.kill()  # threads of its own must not keep it

    def _pass_on(self, progress: frames.Progress | None) -> None:
        if progress is not None:
            self._uplink.report(
                frames.Progress(
                    task=self.task.task,
                    attempt=self.task.attempt,
                    fraction=min(1.0, progress.fraction) if progress.fraction >= 0 else -1.0,
                    message=clean_message(progress.message),
                )
            )


def _graph(task: frames.RunTask) -> str:
    return task.task.partition(".")[0]


def _pipe(on_failure: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        on_failure.callback(os.close, end)
    return ends


def _become(agent: FunctionAgent, task: frames.RunTask, pipes: Iterable[int], orders: int, left: int) -> NoReturn:
    """In the fork: run functions, report how they ended, and leave without a look at what the runtime had in hand."""
    code = EXIT_BROKEN
    try:
        _settle([*pipes], orders)
        given = Orders(ORDER_FD)
        turn: frames.RunTask | None = task
        while turn is not None:
            left -= 1
            _work(agent, turn, given, left)
            turn = given.next_task() if left else None
        code = 0
    except BaseException:
        with contextlib.suppress(BaseException):
            os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def _work(agent: FunctionAgent, task: frames.RunTask, orders: Orders, left: int) -> None:
    reporter = PipeReporter(task, orders)
    outcome = _perform(agent, task, reporter)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # A thread that goes on would work into the next task.
    reporter.end(outcome, last=not left or threading.active_count() > 1)


def _settle(pipes: Sequence[int], orders: int) -> None:
    stdout, stderr, reports = pipes
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    # In place of the channel; the outbox and all else of the runtime is closed behind it.
    os.dup2(reports, REPORT_FD, inheritable=False)
    os.dup2(orders, ORDER_FD, inheritable=False)
    os.closerange(ORDER_FD + 1, MAX_FD)
    prctl.set_dumpable(1)
    # Every fork would draw the same numbers from it; the generators of the standard library see to this themselves.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def _perform(agent: FunctionAgent, task: frames.RunTask, reporter: PipeReporter) -> Outcome:
    try:
        os.chdir(task.workspace)
    except OSError as error:
        message = f"the workspace {task.workspace} cannot be entered in the sandbox: {error.strerror}."
        return Outcome(failure=Failure(code=ErrorCode.SANDBOX_DENIED, message=message, retriable=False))
    if sys.path[0] != task.workspace:
        sys.path.insert(0, task.workspace)
    try:
        outcome = agent.call(task, reporter)
    except Waiting as waiting:
        outcome = Outcome(wait=waiting.wait)
    except AgentFailure as error:
        return Outcome(failure=error.failure)
    except SupervisorError as error:
        return Outcome(failure=Failure(code=error.code, message=str(error), retriable=False))
    if outcome.usage == Usage():
        outcome = msgspec.structs.replace(outcome, usage=reporter.used)
    return outcome


class PipeReporter:
    """Speaks for the attempt, in the fork, from any thread."""

    def __init__(self, task: frames.RunTask, orders: Orders) -> None:
        self._task = task
        self._orders = orders
        self._lock = threading.Lock()
        self._calls = 0
        self.used = Usage()
        """All that `usage` was told."""

    def progress(self, fraction: float, message: str = "") -> None:
        self._send(frames.Progress(task="", attempt=0, fraction=float(fraction), message=clean_message(str(message))))

    def log(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        data = data if data.endswith(b"\n") else data + b"\n"
        for start in range(0, len(data), LOG_FRAME_BYTES):
            self._send(frames.Log(task="", attempt=0, stream="worker", data=data[start : start + LOG_FRAME_BYTES]))

    def usage(self, usage: Usage) -> None:
        with self._lock:
            self.used += sane(usage)
            self._write(frames.UsageReport(task="", attempt=0, usage=self.used))

    def checkpoint(self, step: str, *, done: bool, result: Any = None) -> None:
        try:
            refuse_large(step, len(frames.encoder.encode(result)))
        except InvalidInput as error:
            raise AgentFailure(Failure(error.code, error.message, error.hint, retriable=False)) from error
        self._send(frames.Checkpoint(task="", attempt=0, step=str(step), done=done, result=result))
        self._answered(str(step), done)

    def submit(self, tasks: list[Any]) -> str:
        with self._lock:
            self._calls += 1
            call = self._calls
            self._write(frames.SubmitChildren(task="", attempt=0, call=call, tasks=tasks))
        answer = self._answered("", call)
        assert isinstance(answer, frames.ChildrenSubmitted)
        return answer.graph

    def _answered(self, *question: Any) -> frames.Answer:
        answer = self._orders.answer(question)
        if answer.failure is not None:
            raise AgentFailure(answer.failure)
        return answer

    def end(self, outcome: Outcome, *, last: bool) -> None:
        """How it ended; `last`: this process does no other task."""
        self._send(msgspec.structs.replace(ending(self._task, outcome), last=last))

    def _send(self, report: Report) -> None:
        with self._lock:
            self._write(report)

    def _write(self, report: Report) -> None:
        data = memoryview(frame(frames.encoder.encode(report), frames.MAX_FRAME_BYTES))
        while data:
            data = data[os.write(REPORT_FD, data) :]
