"""The main road: a graph goes in, sandboxed workers do it, results come out."""

from __future__ import annotations

import json

from supervisord_agents.core.model import Dependency, State, TaskSpec, When
from tests.support.daemon import DaemonProcess

ECHO = "supervisord_agents.workers.builtin:echo"


def python(id: str, *after: str | Dependency, function: str = ECHO, args: list[object] | None = None) -> TaskSpec:
    return TaskSpec(id=id, agent="python", input={"function": function, "args": args or [id]}, dependencies=after)


def command(id: str, *argv: str, **fields: object) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": list(argv)}, **fields)  # type: ignore[arg-type]


async def test_a_graph_runs_in_order_and_its_results_are_files(running: DaemonProcess) -> None:
    async with running.client() as client:
        reply = await client.submit([python("A"), python("B1", "A"), python("B2", "A"), python("C", "B1", "B2")])
        waited = await client.wait([reply.graph], mode="all", timeout_s=60)
        assert waited.done
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}
        ended = {view.id.split(".")[1]: view for view in waited.tasks}
        assert ended["A"].ended_at <= ended["B1"].started_at
        assert max(ended["B1"].ended_at, ended["B2"].ended_at) <= ended["C"].started_at
    for name in ("A", "B1", "B2", "C"):
        path = running.state / "results" / f"task_{reply.graph}.{name}.json"
        result = json.loads(path.read_bytes())
        assert result["status"] == "succeeded"
        assert result["output"] == name
        assert set(result) >= {"task_id", "worker_id", "started_at", "completed_at", "tokens_used", "cost_usd"}


async def test_a_command_gives_its_output_and_its_exit_code(running: DaemonProcess) -> None:
    async with running.client() as client:
        spec = command("t", "sh", "-c", "echo out; echo err >&2; exit 3", max_retries=0)
        reply = await client.submit([spec])
        await client.wait(reply.tasks, mode="all", timeout_s=60)
        result = (await client.result(reply.tasks[0])).result
        assert result.status == "failed"
        assert result.output == {"exit_code": 3, "stdout": "out\n", "stderr": "err\n"}
        assert result.error is not None
        assert result.error.code == "WORKER_FAILED"
        logs = await client.logs(reply.tasks[0])
        assert b"out\n" in logs.data
        assert logs.ended


async def test_edges_decide_what_runs_after_a_failure(running: DaemonProcess) -> None:
    async with running.client() as client:
        tasks = [
            command("bad", "false", max_retries=0),
            python("needs", "bad"),
            python("cleanup", Dependency(task="bad", when=When.ALWAYS)),
            python("rescue", Dependency(task="bad", when=When.ON_FAILURE)),
        ]
        reply = await client.submit(tasks)
        waited = await client.wait([reply.graph], mode="all", timeout_s=60)
        states = {view.id.split(".")[1]: view.state for view in waited.tasks}
        assert states == {"bad": "failed", "needs": "failed", "cleanup": "succeeded", "rescue": "succeeded"}
        failure = next(view.failure for view in waited.tasks if view.id.endswith(".needs"))
        assert failure is not None
        assert failure.code == "DEPENDENCY_FAILED"


async def test_a_submit_with_a_key_seen_before_gives_the_first_graph(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        first = await client.submit([python("A")], key="once")
        again = await client.submit([python("A"), python("B")], key="once")
    daemon.kill()
    await daemon.start()
    async with daemon.client() as client:
        later = await client.submit([python("Z")], key="once")
    assert (again.graph, again.tasks, again.duplicate) == (first.graph, first.tasks, True)
    assert (later.graph, later.duplicate) == (first.graph, True)


async def test_a_cancelled_task_is_stopped_and_its_dependents_never_start(running: DaemonProcess) -> None:
    async with running.client() as client:
        reply = await client.submit([command("long", "sleep", "1000"), python("after", "long")])
        long, after = reply.tasks
        async for item in client.subscribe(after="0.0", graph=reply.graph):
            if item.task == long and item.state is State.RUNNING:
                break
        cancelled = await client.cancel(long)
        assert cancelled.cancelled == sorted([long, after])
        shown = await client.show(after)
        assert shown.task.state is State.CANCELLED
        assert shown.task.attempt == 0


async def test_a_task_over_its_time_is_ended_with_timeout(running: DaemonProcess) -> None:
    async with running.client() as client:
        reply = await client.submit([command("slow", "sleep", "1000", timeout_s=0.3, max_retries=0)])
        waited = await client.wait(reply.tasks, mode="all", timeout_s=30)
        assert waited.tasks[0].failure is not None
        assert waited.tasks[0].failure.code == "TIMEOUT"


async def test_an_orderly_stop_leaves_a_clean_journal_and_no_socket(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        reply = await client.submit([python("A")])
        await client.wait(reply.tasks, mode="all", timeout_s=60)
    assert daemon.stop() == 0
    assert not daemon.socket.exists()
    await daemon.start()
    async with daemon.client() as client:
        status = await client.status()
        assert status.recovery.clean
        assert status.recovery.tasks == 1
        assert (await client.result(reply.tasks[0])).result.output == "A"
