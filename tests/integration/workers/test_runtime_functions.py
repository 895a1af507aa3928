"""Python functions in forks of a warm worker: what they are given, what they may return, and what they cannot do to it."""

from __future__ import annotations

import textwrap

import pytest

from supervisord_agents.core.model import Failure, Usage
from supervisord_agents.wire import frames
from tests.support.runtime_process import RuntimeProcess


def failed(end: frames.TaskResult | frames.TaskError) -> frames.TaskError:
    assert isinstance(end, frames.TaskError), end
    return end


def test_a_function_of_the_workspace_gets_its_arguments_and_its_context(worker: RuntimeProcess) -> None:
    worker.module(
        "mine",
        "def go(a, *, b, context):\n"
        "    context.log('from the context')\n"
        "    context.progress(0.5, 'half')\n"
        "    context.usage(input_tokens=3, cost_usd=0.5)\n"
        "    return [a, b, context.task_id, context.attempt, context.workspace, context.dependencies['d'].output]\n",
    )
    dependencies = {"d": frames.DependencyResult(state="succeeded", output=7)}
    given = {"function": "mine:go", "args": [1], "kwargs": {"b": 2}}
    end = worker.run(agent="python", input=given, dependencies=dependencies)
    assert end.output == [1, 2, "g1.t1", 1, str(worker.workspace), 7]
    assert worker.log("worker") == b"from the context\n"
    assert frames.Progress(task="g1.t1", attempt=1, fraction=0.5, message="half") in worker.frames
    assert frames.UsageReport(task="g1.t1", attempt=1, usage=Usage(3, 0, 0.5)) in worker.frames


def test_an_exception_is_a_failure_worth_a_retry_with_the_traceback_in_the_log(worker: RuntimeProcess) -> None:
    worker.module("bad", "def go():\n    raise ValueError('not this')\n")
    end = failed(worker.python("bad:go"))
    assert (end.failure.code, end.failure.message, end.failure.retriable) == ("WORKER_FAILED", "ValueError: not this", True)
    assert b'bad.py", line 2, in go' in worker.log("worker")
    assert b"runtime.py" not in worker.log("worker")


def test_a_permanent_error_is_not_worth_a_retry(worker: RuntimeProcess) -> None:
    source = "from supervisord_agents.workers.agents.base import PermanentError\ndef go():\n    raise PermanentError('never')\n"
    worker.module("bad", source)
    assert not failed(worker.python("bad:go")).failure.retriable


def test_sys_exit_ends_the_function_and_not_the_worker(worker: RuntimeProcess) -> None:
    worker.module("leave", "import sys\ndef go(code):\n    sys.exit(code)\n")
    assert isinstance(worker.python("leave:go", 0), frames.TaskResult)
    assert "sys.exit(4)" in failed(worker.python("leave:go", 4)).failure.message


def test_a_value_that_cannot_be_stored_is_named_by_its_type(worker: RuntimeProcess) -> None:
    worker.module("odd", "import threading\ndef go():\n    return threading.Lock()\nasync def later():\n    pass\n")
    end = failed(worker.python("odd:go"))
    assert "a lock, cannot be stored" in end.failure.message
    assert not end.failure.retriable


def test_text_with_lone_surrogates_numbers_too_large_and_deep_lists_are_refused(worker: RuntimeProcess) -> None:
    worker.module(
        "odd",
        """
        def text():
            return '\\ud800'

        def number():
            return 1 << 80

        def deep(levels=100_000):
            value = []
            for _ in range(levels):
                value = [value]
            return value

        def keys():
            return {None: 1}
        """,
    )
    for name, arguments in (("text", ()), ("number", ()), ("deep", ()), ("deep", (100,)), ("keys", ())):
        end = failed(worker.python(f"odd:{name}", *arguments))
        assert "cannot be stored" in end.failure.message
        assert (end.failure.code, end.failure.retriable) == ("WORKER_FAILED", False)
    assert isinstance(worker.python("odd:deep", 99), frames.TaskResult)


def test_a_value_over_the_limit_is_refused_and_a_text_is_cut(worker: RuntimeProcess) -> None:
    end = failed(worker.python("supervisord_agents.workers.builtin:echo", list(range(5000)), output_limit_bytes=1000))
    assert "the limit is 1000" in end.failure.message
    text = worker.python("supervisord_agents.workers.builtin:echo", "ü" * 5000, output_limit_bytes=1000)
    assert isinstance(text, frames.TaskResult)
    assert text.truncated
    assert 900 < len(text.output.encode()) <= 1000


def test_a_function_that_cannot_be_found_is_named(worker: RuntimeProcess) -> None:
    worker.module("half", "import no_such_thing\n")
    for path, said in (("nowhere:go", "`nowhere:go`"), ("os:nothing", "`os:nothing`"), ("sys:path", "no function")):
        end = failed(worker.python(path))
        assert (end.failure.code, end.failure.retriable) == ("INVALID", False)
        assert said in end.failure.message
    assert "no_such_thing" in failed(worker.python("half:go")).failure.message


def test_a_module_of_the_workspace_is_read_anew_by_the_next_task(worker: RuntimeProcess) -> None:
    worker.module("code", "VALUE = 1\ndef go():\n    return VALUE\n")
    assert worker.python("code:go").output == 1
    worker.module("code", "VALUE = 2\ndef go():\n    return VALUE\n")
    assert worker.python("code:go").output == 2
    assert not (worker.workspace / "__pycache__").exists()


def test_what_a_function_changes_in_its_process_is_not_there_for_the_next(worker: RuntimeProcess) -> None:
    worker.module(
        "state",
        """
        import os, signal, sys

        def spoil():
            os.chdir('/')
            os.environ['LEFT'] = '1'
            del os.environ['HOME']
            os.umask(0o777)
            signal.signal(signal.SIGUSR1, lambda *_: None)
            signal.alarm(60)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            sys.path.append('/left')
            sys.setrecursionlimit(200)
            os.close(1)
            sys.stderr.close()
            sys.stdout = None
            import json
            json.dumps = lambda *_: 'hooked'

        def look():
            print('still heard')
            mask = os.umask(0)
            os.umask(mask)
            blocked = list(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            handled = signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
            import json
            state = [os.getcwd(), dict(os.environ), mask, handled, signal.alarm(0), blocked, sys.path, sys.getrecursionlimit()]
            return [*state, json.dumps(1), sorted(os.listdir('/proc/self/fd'))]
        """,
    )
    before = worker.python("state:look").output
    assert isinstance(worker.python("state:spoil"), frames.TaskResult)
    assert worker.python("state:look").output == before
    assert worker.log("stdout").count(b"still heard\n") == 2


def test_a_thread_that_a_function_left_behind_does_not_hold_the_result(worker: RuntimeProcess) -> None:
    worker.module(
        "lively",
        """
        import threading, time

        def go():
            threading.Thread(target=time.sleep, args=(60,), name='left').start()
            return 1
        """,
    )
    assert worker.python("lively:go").output == 1
    assert worker.python("lively:go", attempt=2).output == 1


def test_a_function_has_neither_the_channel_nor_the_outbox(worker: RuntimeProcess) -> None:
    worker.module(
        "look",
        """
        import os, stat

        def go():
            kinds = {}
            for number in os.listdir('/proc/self/fd'):
                try:
                    kinds[number] = stat.S_IFMT(os.fstat(int(number)).st_mode)
                except OSError:
                    pass  # the directory that was being read
            return {number: stat.filemode(kind)[0] for number, kind in kinds.items()}
        """,
    )
    # 3 is the pipe of its reports, 4 that of the answers to them.
    assert worker.python("look:go").output == {"0": "c", "1": "p", "2": "p", "3": "p", "4": "p"}


SENDER = """
import os, struct, time
import msgspec

def write(data):
    os.write(3, struct.pack('<I', len(data)) + data)

def send(frame, times=1):
    for _ in range(times):
        write(msgspec.msgpack.encode(frame))

"""


FORGER = """
def go():
    of_another = {'task': 'g9.other', 'attempt': 7}
    send({'type': 'progress', **of_another, 'fraction': 5.0, 'message': 'x' * 100_000})
    send({'type': 'log', **of_another, 'stream': 'stdout', 'data': b'mine'})
    send({'type': 'result', **of_another, 'output': 'forged', 'last': True})
    send({'type': 'result', **of_another, 'output': 'again'})
    time.sleep(60)
"""


def test_what_a_function_forges_is_of_its_own_attempt_or_nothing(worker: RuntimeProcess) -> None:
    worker.module("forger", SENDER + FORGER)
    assert worker.python("forger:go", attempt=3) == frames.TaskResult(task="g1.t1", attempt=3, output="forged")
    said = [item for item in worker.frames if isinstance(item, frames.Progress | frames.Log)]
    assert said == [
        frames.Progress(task="g1.t1", attempt=3, fraction=1.0, message="x" * 4096),
        frames.Log(task="g1.t1", attempt=3, stream="worker", data=b"mine"),
    ]


@pytest.mark.parametrize(
    "body",
    ["os.write(3, b'\\xff' * 8)", "send({'type': 'hello', 'version': 1})", "send({'type': 'result'})", "write(b'\\x91' * 5000)"],
)
def test_a_function_that_speaks_no_protocol_fails_alone(worker: RuntimeProcess, body: str) -> None:
    worker.module("garbage", SENDER + f"def go():\n    {body}\n    time.sleep(60)\n")
    end = failed(worker.python("garbage:go"))
    assert end.failure.code == "WORKER_FAILED"
    assert "what is no report" in end.failure.message
    assert worker.python("supervisord_agents.workers.builtin:echo", 1).output == 1


def test_a_deep_output_that_is_forged_is_refused_too(worker: RuntimeProcess) -> None:
    forge = """
    def go():
        frame = msgspec.msgpack.encode({'type': 'result', 'task': '', 'attempt': 0, 'output': None})
        write(frame[:-1] + b'\\x91' * 500 + b'\\xc0')
    """
    worker.module("deep", SENDER + textwrap.dedent(forge))
    end = failed(worker.python("deep:go"))
    assert "nested deeper than 100" in end.failure.message
    assert not end.failure.retriable


def test_of_reports_of_progress_that_are_read_together_the_last_is_passed_on(worker: RuntimeProcess) -> None:
    report = {"type": "progress", "task": "", "attempt": 0, "fraction": 0.5}
    worker.module("flood", SENDER + f"def go():\n    send({report}, 20_000)\n")
    worker.python("flood:go")
    assert 0 < sum(isinstance(item, frames.Progress) for item in worker.frames) < 20_000


def test_a_function_whose_process_dies_costs_its_attempt_and_not_the_worker(worker: RuntimeProcess) -> None:
    worker.module("die", "import os\ndef go(how):\n    os.kill(os.getpid(), 11) if how else os._exit(3)\n")
    said = [failed(worker.python("die:go", how)).failure for how in (1, 0)]
    assert [failure.code for failure in said] == ["WORKER_DIED", "WORKER_DIED"]
    assert "signal 11 without a result" in said[0].message
    assert "code 3 without a result" in said[1].message
    assert worker.python("supervisord_agents.workers.builtin:echo", 1).output == 1


def test_installed_modules_stay_imported_and_those_of_the_workspace_do_not(worker: RuntimeProcess) -> None:
    worker.module("seen", "import sys\ndef go(*names):\n    return [name in sys.modules for name in names]\n")
    worker.python("colorsys:rgb_to_hsv", 0.1, 0.2, 0.3)
    worker.python("nowhere:go")
    assert worker.python("seen:go", "colorsys", "nowhere").output == [True, False]
    worker.module("colorsys", "def rgb_to_hsv(*_):\n    return 'of the workspace'\n")
    assert worker.python("colorsys:rgb_to_hsv").output == "of the workspace"
    (worker.workspace / "colorsys.py").unlink()
    assert worker.python("colorsys:rgb_to_hsv", 0, 0, 0).output == [0.0, 0.0, 0]


def test_what_a_function_says_it_used_is_in_its_result(worker: RuntimeProcess) -> None:
    source = "def go(context):\n    context.usage(input_tokens=3)\n    context.usage(output_tokens=4, cost_usd=0.5)\n"
    worker.module("used", source)
    end = worker.python("used:go")
    assert isinstance(end, frames.TaskResult)
    assert end.usage == Usage(3, 4, 0.5)


def test_a_function_may_run_programs_of_its_own(worker: RuntimeProcess) -> None:
    worker.module("sub", "import subprocess\ndef go():\n    return subprocess.run(['sh', '-c', 'echo in; exit 5']).returncode\n")
    assert worker.python("sub:go").output == 5
    assert worker.log("stdout") == b"in\n"


def test_memory_that_cannot_be_had_is_reported_as_such(worker: RuntimeProcess) -> None:
    worker.module("big", "def go():\n    raise MemoryError\n")
    assert failed(worker.python("big:go")).failure.code == "OUT_OF_MEMORY"


STEPS = """
import threading

def go(context):
    return [context.steps.run("one", lambda: (1, 2)), context.steps.run("one", lambda: "again"), context.steps.unfinished]

def many(context):
    threads = [threading.Thread(target=context.steps.run, args=(str(n), str, n)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(context.steps.results)

def large(context):
    context.steps.run("large", lambda: "x" * 70_000)
"""


def answered(worker: RuntimeProcess, **values: object) -> frames.Checkpoint:
    step = worker.next(frames.Checkpoint)
    worker.send(frames.Checkpointed(task=step.task, attempt=step.attempt, step=step.step, done=step.done, **values))  # type: ignore[arg-type]
    return step


def test_a_step_is_said_before_and_after_and_is_worth_what_was_kept(worker: RuntimeProcess) -> None:
    worker.module("steps", STEPS)
    worker.start(agent="python", input={"function": "steps:go"}, steps={"x": frames.PastStep(attempt=1)}, attempt=2)
    said = [answered(worker) for _ in range(2)]
    assert [(step.attempt, step.step, step.done, step.result) for step in said] == [
        (2, "one", False, None),
        (2, "one", True, [1, 2]),
    ]
    assert worker.next(frames.TaskResult).output == [[1, 2], [1, 2], ["x"]]


def test_a_step_that_is_done_is_not_said_again(worker: RuntimeProcess) -> None:
    worker.module("steps", STEPS)
    past = {"one": frames.PastStep(attempt=1, done=True, result="old")}
    assert worker.run(agent="python", input={"function": "steps:go"}, steps=past).output == ["old", "old", []]


def test_threads_wait_for_their_own_answers_in_whatever_order_they_come(worker: RuntimeProcess) -> None:
    worker.module("steps", STEPS)
    worker.start(agent="python", input={"function": "steps:many"})
    begun = [worker.next(frames.Checkpoint) for _ in range(20)]
    for step in reversed(begun):
        worker.send(frames.Checkpointed(task=step.task, attempt=step.attempt, step=step.step))
    done = [answered(worker) for _ in range(20)]
    assert {step.step: step.result for step in done} == {str(number): str(number) for number in range(20)}
    assert worker.next(frames.TaskResult).output == 20


def test_a_step_that_is_refused_ends_the_attempt_with_the_reason(worker: RuntimeProcess) -> None:
    worker.module("steps", STEPS)
    worker.start(agent="python", input={"function": "steps:go"})
    answered(worker, failure=Failure("DISK_FULL", "no room"))
    assert worker.next(frames.TaskError).failure == Failure("DISK_FULL", "no room")
    worker.start(agent="python", input={"function": "steps:large"})
    answered(worker)
    failure = worker.next(frames.TaskError).failure
    assert (failure.code, failure.retriable) == ("INVALID", False)
    assert "70005 bytes" in failure.message
    assert worker.python("supervisord_agents.workers.builtin:echo", 1).output == 1


def test_a_step_that_was_not_answered_is_said_again_to_the_next_daemon(worker: RuntimeProcess) -> None:
    worker.module("steps", STEPS)
    worker.start(agent="python", input={"function": "steps:go"})
    answered(worker)
    done = worker.next(frames.Checkpoint)
    worker.come_back()
    worker.send(frames.Resume(task="g1.t1", attempt=1))
    assert answered(worker) == done
    assert isinstance(worker.next(frames.TaskResult), frames.TaskResult)
