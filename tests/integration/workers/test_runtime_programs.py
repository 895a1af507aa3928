"""Programs that the runtime runs: what they are given, and what is read of them."""

from __future__ import annotations

import json
import os
import signal
import sys

from supervisord_agents.core.model import Failure
from supervisord_agents.wire import frames
from tests.support.runtime_process import Make, RuntimeProcess


def test_a_command_gives_its_exit_code_and_both_outputs(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "echo out; echo err >&2")
    assert end == frames.TaskResult(task="g1.t1", attempt=1, output={"exit_code": 0, "stdout": "out\n", "stderr": "err\n"})
    assert (worker.log("stdout"), worker.log("stderr")) == (b"out\n", b"err\n")


def test_an_exit_code_other_than_0_is_a_failure_that_keeps_the_output(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "echo part; echo 'first' >&2; echo 'the reason' >&2; exit 3")
    assert isinstance(end, frames.TaskError)
    assert (end.failure.code, end.failure.retriable) == ("WORKER_FAILED", True)
    assert "exited with code 3: the reason" in end.failure.message
    assert end.output == {"exit_code": 3, "stdout": "part\n", "stderr": "first\nthe reason\n"}


def test_exit_codes_named_as_good_are_a_success(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "exit 3", more={"ok_codes": [0, 3]})
    assert isinstance(end, frames.TaskResult)


def test_a_signal_is_a_failure_that_names_it(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "kill -SEGV $$")
    assert isinstance(end, frames.TaskError)
    assert "signal 11" in end.failure.message
    assert end.output["signal"] == 11


def test_stdin_reaches_the_command_whole(worker: RuntimeProcess) -> None:
    end = worker.command("wc", "-c", more={"stdin": "ü" * 500_000})
    assert isinstance(end, frames.TaskResult)
    assert end.output["stdout"].strip() == "1000000"


def test_a_command_that_does_not_read_its_stdin_ends_all_the_same(worker: RuntimeProcess) -> None:
    assert isinstance(worker.command("true", more={"stdin": "x" * 1_000_000}), frames.TaskResult)


def test_a_command_without_stdin_sees_its_end(worker: RuntimeProcess) -> None:
    assert isinstance(worker.command("cat"), frames.TaskResult)


def test_the_environment_holds_only_what_was_given(make_worker: Make) -> None:
    worker = make_worker(environment={"SECRET": "never"})
    end = worker.command("env", "-0", more={"env": {"MINE": "a=b\n"}}, settings={"environment": {"CONFIGURED": "1"}})
    assert isinstance(end, frames.TaskResult)
    found = dict(item.split("=", 1) for item in end.output["stdout"].split("\0") if item)
    assert found == {
        "PATH": f"/usr/local/bin:/usr/bin:/bin:{worker.home}/.agent-supervisor/bin",
        "HOME": str(worker.home),
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "AGENT_SUPERVISOR_TASK": str(worker.home / ".agent-supervisor-task.json"),
        "AGENT_SUPERVISOR_STEPS": str(worker.home / ".agent-supervisor-steps"),
        "CONFIGURED": "1",
        "MINE": "a=b\n",
    }


def test_the_task_and_its_dependencies_lie_in_a_file_that_the_environment_names(worker: RuntimeProcess) -> None:
    dependency = frames.DependencyResult(state="failed", output={"n": 1}, failure=Failure(code="TIMEOUT"))
    end = worker.command("sh", "-c", 'cat "$AGENT_SUPERVISOR_TASK"', dependencies={"a": dependency}, attempt=4)
    assert isinstance(end, frames.TaskResult)
    found = json.loads(end.output["stdout"])
    assert (found["task"], found["attempt"], found["input"]["argv"][0]) == ("g1.t1", 4, "sh")
    assert found["dependencies"] == {"a": {"state": "failed", "output": {"n": 1}, "failure": {"code": "TIMEOUT"}}}


def test_the_command_starts_in_the_workspace(worker: RuntimeProcess) -> None:
    assert worker.command("pwd").output["stdout"].strip() == str(worker.workspace)


def test_output_over_the_limit_is_cut_and_says_so_while_the_log_has_it_all(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo tail >&2", output_limit_bytes=100_000)
    assert isinstance(end, frames.TaskResult)
    assert end.truncated
    assert len(frames.encoder.encode(end.output)) <= 100_000
    assert len(end.output["stdout"]) > 90_000
    assert end.output["stderr"] == "tail\n"
    assert len(worker.log("stdout")) == 3_000_000


def test_output_that_is_no_utf_8_is_replaced_in_the_result_and_whole_in_the_log(worker: RuntimeProcess) -> None:
    end = worker.command("printf", "a\\377\\033[2J\\000b")
    assert isinstance(end, frames.TaskResult)
    assert end.output["stdout"] == "a\ufffd\x1b[2J\0b"
    assert worker.log("stdout") == b"a\xff\x1b[2J\0b"


def test_a_program_that_is_not_there_is_denied_for_good(worker: RuntimeProcess) -> None:
    end = worker.command("no-such-program")
    assert isinstance(end, frames.TaskError)
    assert (end.failure.code, end.failure.retriable) == ("SANDBOX_DENIED", False)
    assert "`no-such-program` is not in the sandbox" in end.failure.message


def test_a_script_without_its_interpreter_says_so(worker: RuntimeProcess) -> None:
    script = worker.workspace / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    end = worker.command(str(script))
    assert isinstance(end, frames.TaskError)
    assert "its interpreter is not" in end.failure.message


def test_a_file_that_may_not_be_executed_says_so(worker: RuntimeProcess) -> None:
    (worker.workspace / "data").write_text("no program")
    end = worker.command(str(worker.workspace / "data"))
    assert isinstance(end, frames.TaskError)
    assert "may not be executed" in end.failure.message


def test_a_workspace_that_is_missing_says_so(worker: RuntimeProcess) -> None:
    for end in (
        worker.command("true", workspace="/no/such"),
        worker.python("supervisord_agents.workers.builtin:noop", workspace="/no/such"),
    ):
        assert isinstance(end, frames.TaskError)
        assert end.failure.code == "SANDBOX_DENIED"
        assert "the workspace /no/such cannot be entered" in end.failure.message


def test_a_grandchild_that_holds_the_pipes_does_not_hold_the_result(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "sleep 30 & echo $!")
    assert isinstance(end, frames.TaskResult)
    os.kill(int(end.output["stdout"]), signal.SIGKILL)


def test_output_of_a_late_grandchild_is_still_read(worker: RuntimeProcess) -> None:
    end = worker.command("sh", "-c", "(sleep 0.2; echo late) & echo early")
    assert isinstance(end, frames.TaskResult)
    assert end.output["stdout"] == "early\nlate\n"


def test_a_command_cannot_take_the_terminal_or_the_group_of_the_worker(worker: RuntimeProcess) -> None:
    script = "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))"
    assert worker.command(sys.executable, "-c", script).output["stdout"] == "True\n"


SCRIPT = """
set -e
agent-step run build -- sh -c 'echo made; echo >> built'
agent-step get deploy || agent-step done deploy '{"url": 7}'
agent-step begin last
agent-step list >&2
"""


def answering(worker: RuntimeProcess, count: int) -> list[frames.Checkpoint]:
    said = []
    for _ in range(count):
        step = worker.next(frames.Checkpoint)
        worker.send(frames.Checkpointed(task=step.task, attempt=step.attempt, step=step.step, done=step.done))
        said.append(step)
    return said


def test_a_script_tells_of_its_steps_and_another_attempt_does_not_do_them_again(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", SCRIPT]})
    said = answering(worker, 4)
    assert [(step.step, step.done, step.result) for step in said] == [
        ("build", False, None),
        ("build", True, "made\n"),
        ("deploy", True, {"url": 7}),
        ("last", False, None),
    ]
    first = worker.next(frames.TaskResult).output
    assert (first["stdout"], first["stderr"]) == ("made\n", "done  build\ndone  deploy\nbegun last\n")
    steps = {step.step: frames.PastStep(attempt=1, done=step.done, result=step.result) for step in said}
    worker.start(input={"argv": ["sh", "-c", SCRIPT]}, attempt=2, steps=steps)
    (again,) = answering(worker, 1)
    assert (again.step, again.attempt) == ("last", 2)
    assert worker.next(frames.TaskResult).output["stdout"] == 'made\n{"url": 7}\n'
    assert (worker.workspace / "built").read_text() == "\n"


def test_a_step_of_a_script_is_not_done_if_its_command_fails_and_a_refusal_says_why(worker: RuntimeProcess) -> None:
    worker.start(input={"argv": ["sh", "-c", "agent-step run bad -- sh -c 'exit 3'"]})
    (begun,) = answering(worker, 1)
    assert not begun.done
    assert worker.next(frames.TaskError).output["exit_code"] == 3
    worker.start(input={"argv": ["sh", "-c", "agent-step begin x"]}, attempt=2)
    step = worker.next(frames.Checkpoint)
    refused = Failure("DISK_FULL", "no room.", "Wait.")
    worker.send(frames.Checkpointed(task=step.task, attempt=step.attempt, step=step.step, failure=refused))
    output = worker.next(frames.TaskError).output
    assert (output["exit_code"], output["stderr"]) == (125, "agent-step: no room. Wait.\n")
    output = worker.command("agent-step", "done", "x", '"' + "x" * 70_000 + '"', attempt=3).output
    assert output["exit_code"] == 125
    assert "at most 65536 are kept" in output["stderr"]


HOSTILE = """
import os, socket
path = os.environ["AGENT_SUPERVISOR_STEPS"]
def ask(data):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(data)
        return sock.recv(1 << 16)
for data in (b"\\xff\\n", b"[]\\n", b'{"step": 1}\\n', b'{"other": 1}\\n', b"[" * 5000 + b"\\n"):
    assert b'"ok": false' in ask(data), data
many = [socket.socket(socket.AF_UNIX) for _ in range(60)]
for sock in many:
    sock.connect(path)
for sock in many:
    sock.close()
long = socket.socket(socket.AF_UNIX)
long.connect(path)
try:
    while True:
        long.sendall(b"x" * 65536)
except OSError:
    print("thrown out", ask(b"{}\\n").decode(), end="")
"""


def test_what_is_no_step_costs_its_sender_alone(worker: RuntimeProcess) -> None:
    output = worker.command("python3", "-c", HOSTILE).output
    assert output["stdout"] == 'thrown out {"ok": true, "steps": {}}\n', output
    assert worker.command("true", attempt=2).output["exit_code"] == 0
