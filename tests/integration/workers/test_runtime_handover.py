"""A worker whose daemon goes away goes on, and tells a new one all that it has not heard, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_agents.core.model import Usage
from supervisord_agents.wire import frames
from supervisord_agents.workers import outbox
from supervisord_agents.workers.transcript import WAITING_BYTES
from tests.support.runtime_process import COMMAND, RuntimeProcess

STEPS = """
import os, time

def wait(name):
    while not os.path.exists(name):
        time.sleep(0.005)

def go(context):
    context.usage(input_tokens=1)
    print("before", flush=True)
    wait("one")
    context.usage(input_tokens=2)
    context.progress(0.5, "half")
    print("between", flush=True)
    open("said", "w").close()
    wait("two")
    print("after", flush=True)
    return "done"
"""


def resume(worker: RuntimeProcess, log_bytes: int = 0) -> None:
    worker.send(frames.Resume(task="g1.t1", attempt=1, log_bytes=log_bytes))


def appears(path: Path) -> None:
    """The worker runs its function; only the file system tells how far it is."""
    for _ in range(100_000):
        if path.exists():
            return
        os.sched_yield()
    raise AssertionError(f"{path.name} did not appear")


def test_what_was_said_without_a_daemon_reaches_the_next_one_from_where_it_asks(worker: RuntimeProcess) -> None:
    worker.module("steps", STEPS)
    worker.start(agent="python", input={"function": "steps:go"})
    assert worker.next(frames.Log).data == b"before\n"
    worker.leave()
    (worker.workspace / "one").touch()
    appears(worker.workspace / "said")
    hello = worker.come_back()
    assert (hello.task, hello.attempt) == ("g1.t1", 1)
    resume(worker, len(b"before\n"))
    assert worker.next(frames.Progress).message == "half"
    (worker.workspace / "two").touch()
    end = worker.next(frames.TaskResult)
    assert (end.output, end.usage) == ("done", Usage(3, 0, 0.0))
    said = [item for item in worker.frames if isinstance(item, frames.Log)]
    assert [(item.offset, item.data) for item in said] == [(7, b"between\n"), (15, b"after\n")]
    assert [item.usage for item in worker.frames if isinstance(item, frames.UsageReport)] == [Usage(3, 0, 0.0)]


@pytest.mark.parametrize("times", [1, 3])
def test_an_end_is_told_to_every_daemon_until_there_is_another_task(worker: RuntimeProcess, times: int) -> None:
    worker.start(input={"argv": ["sh", "-c", "echo one; echo two"]})
    worker.next(frames.TaskResult)
    for _ in range(times):
        hello = worker.come_back()
        assert (hello.task, hello.attempt) == ("g1.t1", 1)
        resume(worker)
        assert worker.next(frames.TaskResult).output == {"exit_code": 0, "stdout": "one\ntwo\n", "stderr": ""}
        assert worker.log() == b"one\ntwo\n"
    worker.start(task="g1.t2", input={"argv": ["true"]})
    assert worker.next(frames.TaskResult).task == "g1.t2"
    assert worker.come_back().task == "g1.t2"


def test_before_it_is_told_where_to_go_on_it_says_nothing_of_the_attempt(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", "echo up; until [ -e one ]; do sleep 0.01; done; echo end"]})
    worker.next(frames.Log)
    worker.come_back()
    (worker.workspace / "one").touch()
    while outbox.read(worker.outbox) is None:
        os.sched_yield()
    resume(worker, 3)
    worker.next(frames.TaskResult)
    assert [type(item) for item in worker.frames if not isinstance(item, frames.Heartbeat)] == [
        frames.WorkerHello,
        frames.Log,
        frames.TaskResult,
    ]
    assert worker.log() == b"end\n"


def test_a_task_that_the_daemon_sent_before_it_died_is_begun(worker: RuntimeProcess) -> None:
    worker.next(frames.WorkerHello)
    worker.start(input={"argv": ["echo", "up"]})
    hello = worker.come_back()
    assert hello.task == "g1.t1"
    resume(worker)
    assert worker.next(frames.TaskResult).task == "g1.t1"
    assert worker.log() == b"up\n"


def test_half_a_frame_of_a_dead_daemon_is_forgotten(worker: RuntimeProcess) -> None:
    worker.next(frames.WorkerHello)
    worker.socket.sendall(b"\x20\x00\x00\x00half")
    assert worker.come_back().task == ""
    worker.start(input={"argv": ["true"]})
    assert worker.next(frames.TaskResult).task == "g1.t1"


def test_without_a_daemon_a_program_that_prints_and_prints_stands_still_and_loses_nothing(worker: RuntimeProcess) -> None:
    """More than can wait: the program blocks until somebody listens, and the worker stays small."""
    total = 8 * WAITING_BYTES
    worker.start(
        input={"argv": ["sh", "-c", f"echo up; until [ -e one ]; do sleep 0.01; done; yes x | head -c {total}; echo end"]}
    )
    assert worker.next(frames.Log).data == b"up\n"
    worker.leave()
    (worker.workspace / "one").touch()
    before = rss_bytes(worker.pid)
    asleep(worker.pid)
    assert rss_bytes(worker.pid) - before < 4 * WAITING_BYTES
    worker.come_back()
    resume(worker, 3)
    worker.next(frames.TaskResult)
    assert worker.log() == b"x\n" * (total // 2) + b"end\n"


def test_a_cancel_reaches_it_by_the_new_channel(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", "echo up; exec sleep 1000"]})
    worker.next(frames.Log)
    worker.come_back()
    resume(worker, 3)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    assert worker.next(frames.TaskError).failure.code == "CANCELLED"


def test_a_new_task_in_place_of_a_resume_is_the_only_one_that_is_heard(worker: RuntimeProcess) -> None:
    """The attempt that it had was not the journal's any more."""
    worker.start(input={"argv": ["echo", "old"]})
    worker.next(frames.TaskResult)
    worker.come_back()
    worker.start(task="g1.t9", input={"argv": ["echo", "new"]}, agent_class=COMMAND)
    assert worker.next(frames.TaskResult).task == "g1.t9"
    assert worker.log() == b"new\n"


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def asleep(pid: int) -> None:
    """Return when the worker and its program wait: neither has used the CPU for a thousand looks in a row."""
    quiet, before = 0, ""
    while quiet < 1000:
        now = Path(f"/proc/{pid}/schedstat").read_text()
        quiet, before = (quiet + 1, before) if now == before else (0, now)
        os.sched_yield()
