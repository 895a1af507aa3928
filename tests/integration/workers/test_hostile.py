"""Tasks that abuse their worker, in a real daemon: they reach their own attempt, and the next task finds nothing of them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.core.model import Result, TaskSpec
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import TaskView
from tests.support.daemon import DaemonProcess

ONE_WORKER = "[pools.standard]\nmin_workers = 0\nmax_workers = 1\n[tasks]\nbackoff_s = 0.01\n"


def executed(source: str, **fields: Any) -> TaskSpec:
    """Source that is run inside a function, in a private workspace unless another is named."""
    given = {"function": "builtins:exec", "args": [textwrap.dedent(source), {}]}
    return TaskSpec(agent="python", input=given, **{"max_retries": 0, **fields})


def called(function: str, *arguments: object, **fields: Any) -> TaskSpec:
    return TaskSpec(agent="python", input={"function": function, "args": list(arguments)}, **{"max_retries": 0, **fields})


async def run(client: Client, spec: TaskSpec) -> tuple[TaskView, Result]:
    reply = await client.submit([spec])
    waited = await client.wait(reply.tasks, mode="all", timeout_s=90)
    return waited.tasks[0], (await client.result(reply.tasks[0])).result


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("daemon"), ONE_WORKER)
    with process.running():
        yield process


LITTER = """
    import os, subprocess, sys
    for place in ('.', os.environ['HOME'], '/tmp', '/dev/shm'):
        os.chdir(place)
        open('left', 'w').close()
        open('colorsys.py', 'w').write('PLANTED = 1')
        os.symlink('/etc', 'link')
        os.makedirs('shut/in/deep')
        open('shut/in/file', 'w').close()
        os.chmod('shut/in', 0)
        os.chmod('shut', 0)
    os.chdir('/tmp')
    for _ in range(3000):
        os.mkdir('d')
        os.chdir('d')
    os.chmod('/tmp', 0)
    subprocess.Popen(['sleep', '1000'], start_new_session=True)
"""
LOOK = """
    import json, os
    found = {place: os.listdir(place) for place in ('/workspace', os.environ['HOME'], '/tmp', '/dev/shm')}
    found['processes'] = [name for name in os.listdir('/proc') if name.isdigit()]
    found['modes'] = [oct(os.stat(place).st_mode)[-4:] for place in ('/workspace', os.environ['HOME'], '/tmp')]
    print(json.dumps(found, sort_keys=True))
"""


async def test_the_next_task_of_a_worker_finds_nothing_of_the_one_before(running: DaemonProcess) -> None:
    async with running.client() as client:
        first, _ = await run(client, executed(LOOK))
        littered, _ = await run(client, executed(LITTER))
        then, _ = await run(client, executed(LOOK))
        assert [view.state for view in (first, littered, then)] == ["succeeded"] * 3, littered.failure
        assert first.worker == littered.worker == then.worker
        before, after = [(await client.logs(view.id)).data.split(b"\n")[1] for view in (first, then)]
        assert b'"/tmp": [' in before  # with the place of this clone, if that lies in it
        assert _without_pids(after) == _without_pids(before)


def _without_pids(line: bytes) -> bytes:
    head, _, rest = line.partition(b'"processes": [')
    processes, _, tail = rest.partition(b"]")
    assert processes.count(b",") == 1, "the worker, and the function itself"
    return head + tail


async def test_emptying_stops_at_what_belongs_to_the_host(running: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "kept").write_text("of the user")
    async with running.client() as client:
        workers = set()
        for number in range(2):
            source = f"open('{workspace}/{number}', 'w').close(); open('/tmp/left', 'x').close()"
            view, _ = await run(client, executed(source, workspace=str(workspace)))
            assert view.state == "succeeded", view.failure
            workers.add(view.worker)
        assert len(workers) == 1, "what leads to the workspace is no reason to leave"
    assert sorted(os.listdir(workspace)) == ["0", "1", "kept"]


@pytest.mark.parametrize(
    "source",
    [
        "import ctypes; assert ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0",
        "import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (50, 50))",
        "import os; os.sched_setaffinity(1, [min(os.sched_getaffinity(1))])",
    ],
    ids=["shared memory", "limits", "processors"],
)
async def test_a_worker_that_cannot_be_made_clean_takes_no_other_task(running: DaemonProcess, source: str) -> None:
    async with running.client() as client:
        spoiled, _ = await run(client, executed(source))
        assert spoiled.state == "succeeded", spoiled.failure
        then, _ = await run(client, executed("pass"))
        assert then.state == "succeeded", then.failure
        assert then.worker != spoiled.worker
        assert b"cannot clear up" in (await client.logs(spoiled.id)).data


async def test_nothing_of_the_daemons_is_within_reach_of_a_task(running: DaemonProcess) -> None:
    source = """
        import os
        assert not os.path.exists('/run/worker')
        for path in ('/proc/1/fd/3', '/proc/1/fd/4', '/proc/1/mem', '/proc/1/environ'):
            for flags in (os.O_RDONLY, os.O_WRONLY):
                try:
                    os.open(path, flags)
                except PermissionError:
                    continue
                raise AssertionError(path)
        for number in range(3, 64):
            try:
                os.fstat(number)
            except OSError:
                continue
            assert number in (3, 4), number  # for its reports, and for the answers to its checkpoints
    """
    async with running.client() as client:
        view, _ = await run(client, executed(source))
        assert view.state == "succeeded", view.failure
        script = "ls /proc/self/fd; cat /proc/1/fd/4 /proc/1/environ; ls /run/worker"
        _, result = await run(client, TaskSpec(input={"argv": ["sh", "-c", script]}, max_retries=0))
        assert result.output["stdout"].split() == ["0", "1", "2", "3"]  # 3 is the directory that `ls` reads
        assert result.output["stderr"].count("Permission denied") == 2


async def test_what_a_function_forges_is_its_own_result(running: DaemonProcess) -> None:
    source = """
        import msgspec, os, struct, time
        def send(frame):
            data = msgspec.msgpack.encode(frame)
            os.write(3, struct.pack('<I', len(data)) + data)
        for _ in range(5000):
            send({'type': 'progress', 'task': 'g.other', 'attempt': 1, 'fraction': 0.5, 'message': 'flood'})
        send({'type': 'result', 'task': 'g.other', 'attempt': 9, 'output': 'forged', 'last': True})
        send({'type': 'hello', 'version': 2})
        time.sleep(60)
    """
    async with running.client() as client:
        view, result = await run(client, executed(source))
        assert (view.state, result.output) == ("succeeded", "forged")
        then, _ = await run(client, executed("pass"))
        assert (then.state, then.worker) == ("succeeded", view.worker)


async def test_a_function_over_its_time_in_a_long_call_leaves_its_worker_to_the_next(running: DaemonProcess) -> None:
    async with running.client() as client:
        view, _ = await run(client, called("builtins:sum", list(range(10)), timeout_s=30))
        slow, _ = await run(client, executed("sum(range(10**12))", timeout_s=0.3))
        assert slow.failure is not None
        assert slow.failure.code == "TIMEOUT"
        then, result = await run(client, called("builtins:sum", [1, 2]))
        assert (then.state, result.output, then.worker) == ("succeeded", 3, view.worker)


async def test_a_deep_output_fails_for_good_and_harms_nobody(running: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "deep.py").write_text("def go(n):\n    v = 1\n    for _ in range(n):\n        v = [v]\n    return v\n")
    async with running.client() as client:
        for levels in (101, 900, 100_000):
            view, _ = await run(client, called("deep:go", levels, workspace=str(workspace), max_retries=3))
            assert view.failure is not None
            assert (view.failure.code, view.attempt) == ("WORKER_FAILED", 1)


async def test_a_workspace_that_was_replaced_is_the_new_one(running: DaemonProcess, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    async with running.client() as client:
        for name in ("first", "second"):
            workspace.mkdir()
            (workspace / name).touch()
            _, result = await run(client, called("os:listdir", ".", workspace=str(workspace)))
            assert result.output == [name]
            workspace.rename(tmp_path / f"was-{name}")


async def test_no_files_of_workers_are_left_when_they_have_gone(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        await run(client, TaskSpec(input={"argv": ["true"]}))
        await run(client, executed("pass"))
    assert daemon.stop() == 0
    assert os.listdir(daemon.state / "workers") == []
