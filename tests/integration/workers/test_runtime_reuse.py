"""Several functions of a graph in one process, where the agent's options say so; and everything that ends such a process."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.wire import frames
from tests.support.daemon import DaemonProcess
from tests.support.runtime_process import PATIENCE_S, RuntimeProcess

SETTINGS = {"name": "python", "options": {"tasks_per_process": 3}}
MODULE = """
import os, subprocess, sys, threading, time

seen = []

def pid(word=""):
    seen.append(word)
    print("out " + word)
    return [os.getpid(), list(seen)]

def thread():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()

def child():
    subprocess.Popen(["sleep", "60"])
    return os.getpid()

def dies():
    os._exit(3)

def fails():
    raise ValueError("no")

def waits():
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(worker: RuntimeProcess) -> Any:
    worker.module("work", MODULE)

    def run(function: str, *args: str, task: str = "g.t", **values: Any) -> Any:
        end = worker.run(
            agent="python", input={"function": f"work:{function}", "args": args}, task=task, settings=SETTINGS, **values
        )
        return end.failure.code if isinstance(end, frames.TaskError) else end.output

    return run


def test_a_process_does_as_many_tasks_as_it_may(run: Any, worker: RuntimeProcess) -> None:
    (first, one), (second, two), (third, three), (fourth, four) = (run("pid", word, task=f"g.{word}") for word in "abcd")
    assert first == second == third != fourth
    assert [one, two, three, four] == [["a"], ["a", "b"], ["a", "b", "c"], ["d"]]
    assert [(item.task, item.data) for item in worker.frames if isinstance(item, frames.Log)] == [
        (f"g.{word}", f"out {word}\n".encode()) for word in "abcd"
    ]


def test_by_default_each_task_has_its_own(worker: RuntimeProcess) -> None:
    worker.module("work", MODULE)
    ends = [worker.python("work:pid", task=f"g.{number}") for number in range(2)]
    assert len({end.output[0] for end in ends}) == 2
    assert [end.output[1] for end in ends] == [[""], [""]]


@pytest.mark.parametrize("other", [{"task": "other.t"}, {"workspace": "/"}, {"settings": {**SETTINGS, "model": "m"}}])
def test_another_graph_workspace_or_setting_has_another_process(run: Any, worker: RuntimeProcess, other: dict[str, Any]) -> None:
    first = run("pid")[0]
    values = {"task": "g.u", "settings": SETTINGS, **other}
    end = worker.run(agent="python", input={"function": "os:getpid"}, **values)
    assert end.output != first
    assert ended(first)


def test_a_large_order_has_another_process(run: Any) -> None:
    first, second = run("pid"), run("pid", "x" * 100_000)
    assert first[0] != second[0]


@pytest.mark.parametrize("function", ["thread", "dies", "waits"])
def test_a_process_that_is_not_clean_is_not_used_again(run: Any, worker: RuntimeProcess, function: str) -> None:
    first = run("pid")[0]
    if function == "waits":
        worker.start(agent="python", input={"function": "work:waits"}, task="g.w", settings=SETTINGS)
        while worker.next(frames.Log).data != b"up\n":
            pass
        worker.send(frames.CancelTask(task="g.w", attempt=1))
        worker.next(frames.TaskError)
    else:
        run(function)
    assert run("pid")[0] != first
    assert ended(first)


def test_a_failure_is_no_reason_for_another_process(run: Any) -> None:
    first = run("pid")[0]
    assert run("fails") == "WORKER_FAILED"
    assert run("pid")[0] == first


async def test_in_its_sandbox_no_process_is_used_again_that_has_children(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.config.write_text(
        "[agents.python.options]\ntasks_per_process = 10\n[pools.standard]\nmin_workers = 1\nmax_workers = 1\n"
    )
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "work.py").write_text(MODULE)
    await daemon.start()

    def task(id: str, function: str, *after: str) -> TaskSpec:
        given = {"function": f"work:{function}"}
        return TaskSpec(id=id, agent="python", input=given, workspace=str(workspace), dependencies=after)

    async with daemon.client() as client:
        graph = [task("a", "pid"), task("b", "pid", "a"), task("c", "child", "b"), task("d", "pid", "c")]
        tasks = (await client.submit(graph)).tasks
        await client.wait(tasks, mode="all", timeout_s=60)
        (one, _), (two, seen), three, (four, last) = [(await client.result(name)).result.output for name in tasks]
    assert one == two == three != four
    assert (seen, last) == (["", ""], [""])


def test_the_resting_process_ends_with_its_worker(run: Any, worker: RuntimeProcess) -> None:
    first = run("pid")[0]
    worker.leave(for_ever=True)
    assert worker.wait() == 0
    assert ended(first)


def ended(pid: int) -> bool:
    """Wait for it; as nobody's child it may be buried by anybody."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    found = bool(select.select([descriptor], [], [], PATIENCE_S)[0])
    os.close(descriptor)
    return found
