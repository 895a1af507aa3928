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
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(worker.home),
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "AGENT_SUPERVISOR_TASK": str(worker.home / ".agent-supervisor-task.json"),
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
