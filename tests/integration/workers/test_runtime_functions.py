"""Python functions in a warm worker: what they are given, what they may return, and what they cannot leave behind."""

from __future__ import annotations

from supervisord_agents.core.model import Usage
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
    assert "returned a lock" in end.failure.message
    assert not end.failure.retriable


def test_text_with_lone_surrogates_and_numbers_too_large_are_refused(worker: RuntimeProcess) -> None:
    worker.module(
        "odd",
        """
        def text():
            return '\\ud800'

        def number():
            return 1 << 80

        def deep():
            value = []
            for _ in range(100_000):
                value = [value]
            return value
        """,
    )
    for name in ("text", "number", "deep"):
        assert "cannot be stored" in failed(worker.python(f"odd:{name}")).failure.message


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


def test_what_a_function_changes_in_the_process_is_put_back(worker: RuntimeProcess) -> None:
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

        def look():
            print('still heard')
            mask = os.umask(0)
            os.umask(mask)
            blocked = list(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            handled = signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
            return [os.getcwd(), dict(os.environ), mask, handled, signal.alarm(0), blocked, sys.path, sys.getrecursionlimit()]
        """,
    )
    before = worker.python("state:look").output
    assert isinstance(worker.python("state:spoil"), frames.TaskResult)
    assert worker.python("state:look").output == before
    assert worker.log("stdout").count(b"still heard\n") == 2


def test_a_worker_whose_function_left_a_thread_behind_says_so_and_ends_after_the_result(worker: RuntimeProcess) -> None:
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
    assert b"left 1 thread(s) running (left)" in worker.log("worker")
    assert worker.wait() == 0


def test_a_function_may_run_programs_of_its_own(worker: RuntimeProcess) -> None:
    worker.module("sub", "import subprocess\ndef go():\n    return subprocess.run(['sh', '-c', 'echo in; exit 5']).returncode\n")
    assert worker.python("sub:go").output == 5
    assert worker.log("stdout") == b"in\n"


def test_memory_that_cannot_be_had_is_reported_as_such(worker: RuntimeProcess) -> None:
    worker.module("big", "def go():\n    raise MemoryError\n")
    assert failed(worker.python("big:go")).failure.code == "OUT_OF_MEMORY"
