"""The runtime as the daemon sees it: frames, order, ends, and what happens when the channel breaks."""

from __future__ import annotations

import os
import tempfile

import pytest

from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import frame
from supervisord_agents.workers import outbox
from tests.support.runtime_process import AS_PID_1, Make, RuntimeProcess

ECHO = "supervisord_agents.workers.builtin:echo"
NOOP = "supervisord_agents.workers.builtin:noop"
SLEEP = "supervisord_agents.workers.builtin:sleep"


def test_the_worker_says_hello_first(worker: RuntimeProcess) -> None:
    worker.next(frames.WorkerHello)
    assert worker.frames == [frames.WorkerHello(version=frames.WORKER_PROTOCOL_VERSION, pid=worker.pid)]


def test_a_result_names_its_attempt_and_carries_the_output(worker: RuntimeProcess) -> None:
    end = worker.python(ECHO, {"a": [1, 2.5, None, "ü"]}, task="g.x", attempt=3)
    assert end == frames.TaskResult(task="g.x", attempt=3, output={"a": [1, 2.5, None, "ü"]})


def test_the_end_lies_in_the_outbox_as_it_was_sent(worker: RuntimeProcess) -> None:
    end = worker.python(ECHO, "kept", task="g.x", attempt=2)
    assert outbox.read(worker.outbox) == end


def test_the_outbox_holds_the_last_end_whatever_the_length_of_those_before(worker: RuntimeProcess) -> None:
    for number, length in enumerate((100_000, 10, 3)):
        end = worker.python(ECHO, "x" * length, attempt=number)
        assert outbox.read(worker.outbox) == end


def test_progress_comes_in_order_before_the_result(worker: RuntimeProcess) -> None:
    worker.python(SLEEP, 0.1)
    fractions = [item.fraction for item in worker.frames if isinstance(item, frames.Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_all_output_of_a_function_comes_before_its_result(worker: RuntimeProcess) -> None:
    worker.module(
        "talk",
        """
        import os, sys

        def go():
            print('x' * 300000)
            os.write(2, b'\\xff\\x1b[31m\\0raw')
            sys.stdout.write('end')
        """,
    )
    end = worker.python("talk:go")
    assert worker.frames[-1] is end
    assert worker.log("stdout") == b"x" * 300000 + b"\nend"
    assert worker.log("stderr") == b"\xff\x1b[31m\0raw"
    assert max(len(item.data) for item in worker.frames if isinstance(item, frames.Log)) <= 64 * 1024


def test_a_hundred_no_ops_run_in_one_warm_worker(worker: RuntimeProcess) -> None:
    for number in range(100):
        assert worker.python(NOOP, task=f"g.t{number}") == frames.TaskResult(task=f"g.t{number}", attempt=1)


def test_tasks_queued_behind_each_other_run_in_order(worker: RuntimeProcess) -> None:
    for number in range(5):
        worker.start(agent="python", input={"function": ECHO, "args": [number]}, task=f"g.t{number}")
    assert [worker.next(frames.TaskResult).output for _ in range(5)] == list(range(5))


def test_cancel_ends_a_command_with_sigterm(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", "echo up; exec sleep 60"]})
    worker.next(frames.Log)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    end = worker.next(frames.TaskError)
    assert end.failure.code == "CANCELLED"
    assert "signal 15" in end.failure.message
    assert not end.failure.retriable


def test_cancel_ends_a_command_that_ignores_sigterm(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["bash", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]})
    worker.next(frames.Log)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    assert "signal 9" in worker.next(frames.TaskError).failure.message


def cancel_running(worker: RuntimeProcess) -> frames.TaskError:
    worker.next(frames.Log)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    return worker.next(frames.TaskError)


def test_cancel_ends_a_function_and_the_worker_takes_the_next_task(worker: RuntimeProcess) -> None:
    worker.module("long", "import time\ndef go():\n    print('up')\n    time.sleep(60)\n")
    worker.start(agent="python", input={"function": "long:go"})
    end = cancel_running(worker)
    assert (end.failure.code, end.failure.retriable) == ("CANCELLED", False)
    assert "signal 15" in end.failure.message
    assert worker.python(ECHO, "next", attempt=2).output == "next"


def test_cancel_ends_a_function_that_ignores_sigterm_in_a_long_call_of_c(worker: RuntimeProcess) -> None:
    worker.module(
        "deaf",
        """
        import signal

        def go():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print('up')
            sum(range(10**12))
        """,
    )
    worker.start(agent="python", input={"function": "deaf:go"})
    assert "signal 9" in cancel_running(worker).failure.message
    assert worker.python(ECHO, "next", attempt=2).output == "next"


def test_heartbeats_go_on_while_a_function_holds_the_lock_of_the_interpreter(worker: RuntimeProcess) -> None:
    worker.module("busy", "def go():\n    print('up')\n    sum(range(10**12))\n")
    worker.start(agent="python", input={"function": "busy:go"})
    worker.next(frames.Log)
    worker.next(frames.Heartbeat)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    worker.next(frames.TaskError)


def test_a_task_that_is_cancelled_before_it_began_does_not_run(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", "echo up; exec sleep 60"]})
    worker.next(frames.Log)
    worker.start(input={"argv": ["touch", str(worker.workspace / "ran")]}, attempt=2)
    worker.send(frames.CancelTask(task="g1.t1", attempt=2))
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    assert [worker.next(frames.TaskError).attempt for _ in range(2)] == [1, 2]
    assert not (worker.workspace / "ran").exists()


def test_a_cancel_of_another_attempt_is_ignored(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["cat"], "stdin": "whole"}, attempt=2)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    assert worker.next(frames.TaskResult).output["stdout"] == "whole"


def test_a_worker_that_was_cancelled_takes_the_next_task(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", "echo up; exec sleep 60"]})
    worker.next(frames.Log)
    worker.send(frames.CancelTask(task="g1.t1", attempt=1))
    worker.next(frames.TaskError)
    assert isinstance(worker.command("true", attempt=2), frames.TaskResult)


def test_an_idle_worker_leaves_when_no_daemon_can_come(worker: RuntimeProcess) -> None:
    worker.next(frames.WorkerHello)
    worker.leave(for_ever=True)
    assert worker.wait() == 0


@pytest.mark.parametrize("agent", ["python", "command"])
def test_without_any_daemon_a_task_still_ends_and_leaves_its_end_in_the_outbox(worker: RuntimeProcess, agent: str) -> None:
    (worker.workspace / "slow.py").write_text("import time\ndef go():\n    print('up')\n    time.sleep(0.3)\n    return 'done'\n")
    given = {"python": {"function": "slow:go"}, "command": {"argv": ["sh", "-c", "echo up; sleep 0.3; echo done"]}}
    worker.start(agent=agent, input=given[agent])
    worker.next(frames.Log)
    worker.leave(for_ever=True)
    assert worker.wait() == 0
    end = outbox.read(worker.outbox)
    assert isinstance(end, frames.TaskResult)
    assert "done" in str(end.output)


@pytest.mark.parametrize(
    "data",
    [frame(b"\xc1"), frame(frames.encoder.encode({"type": "nonsense"})), b"\xff\xff\xff\xff"],
    ids=["bytes", "type", "length"],
)
def test_garbage_from_the_daemon_ends_the_worker_with_a_clear_message(worker: RuntimeProcess, data: bytes) -> None:
    worker.next(frames.WorkerHello)
    worker.socket.sendall(data)
    assert worker.wait() == 65
    assert "not of the worker protocol" in worker.stderr or "the limit is" in worker.stderr
    assert "Traceback" not in worker.stderr


def test_an_agent_class_that_the_sandbox_lacks_is_a_clear_failure(worker: RuntimeProcess) -> None:
    end = worker.run(input={}, agent_class="no.such.module:Agent")
    assert isinstance(end, frames.TaskError)
    assert (end.failure.code, end.failure.retriable) == ("SANDBOX_DENIED", False)
    assert "no.such.module:Agent" in end.failure.message


def test_a_command_inherits_no_descriptor(worker: RuntimeProcess) -> None:
    end = worker.command("ls", "/proc/self/fd")
    # `ls` has the directory itself open as descriptor 3.
    assert end.output["stdout"].split() == ["0", "1", "2", "3"]


def test_a_command_under_the_same_uid_cannot_look_into_the_worker(make_worker: Make) -> None:
    nobody = 65_534
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = ("/usr/bin/setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        worker = make_worker(prefix=prefix, environment={"HOME": directory})
        end = worker.command("sh", "-c", "head -c1 /proc/$PPID/environ; ls /proc/$PPID/fd; true", workspace=directory)
        assert isinstance(end, frames.TaskResult), end
        assert end.output["stdout"] == ""
        assert end.output["stderr"].count("Permission denied") == 2
        worker.close()


def test_as_pid_1_it_ends_what_a_command_left_running_and_buries_orphans(make_worker: Make) -> None:
    worker = make_worker(prefix=AS_PID_1)
    end = worker.command("sh", "-c", "(for n in 1 2 3 4 5; do sh -c '(sleep 0 &)' ; done); (sleep 60 >/dev/null 2>&1 &); exit 7")
    assert isinstance(end, frames.TaskError)
    assert end.output["exit_code"] == 7
    count = worker.python("supervisord_agents.workers.builtin:echo", 1, attempt=2)
    assert isinstance(count, frames.TaskResult)
    worker.module(
        "family",
        """
        import os

        def go():
            try:
                return os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 'none'
        """,
    )
    assert worker.python("family:go", attempt=3).output == "none"
