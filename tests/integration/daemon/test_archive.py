"""A daemon that keeps nothing that has ended in memory: everything is found all the same, also after a kill -9."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

ECHO = "supervisord_agents.workers.builtin:echo"
CONFIG = """
[tasks]
keep_ended = 0
[pools.standard]
min_workers = 2
max_workers = 2
"""


def echo(id: str, *after: str) -> TaskSpec:
    return TaskSpec(id=id, agent="python", input={"function": ECHO, "args": [id]}, dependencies=after)


@pytest.fixture
def daemon(daemon: DaemonProcess) -> DaemonProcess:
    daemon.config.write_text(CONFIG)
    return daemon


async def archived(client: Client, count: int) -> None:
    while (await client.status()).archived != count:
        await asyncio.sleep(0.05)


async def test_what_is_archived_is_found_by_every_command(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        graph = await client.submit(
            [echo("a"), echo("b", "a"), TaskSpec(id="bad", input={"argv": ["false"]}, max_retries=0)], key="k"
        )
        await client.wait([graph.graph])
        await archived(client, 3)
        status = await client.status()
        assert sum(status.counts.values()) == 0
        for name in (graph.tasks[1], graph.graph[:6] + ".b"):
            shown = await client.show(name)
            assert (shown.task.id, shown.task.state) == (graph.tasks[1], State.SUCCEEDED)
            assert shown.dependencies == {graph.tasks[0]: State.SUCCEEDED}
            assert [moment["state"] for moment in shown.history] == ["blocked", "ready", "running", "succeeded"]
            assert (await client.result(name)).result.output == "b"
        assert (await client.show(graph.tasks[0])).dependents == [graph.tasks[1]]
        assert (await client.logs(graph.tasks[0])).ended
        waited = await client.wait([graph.graph], timeout_s=10.0)
        assert (waited.done, [task.id for task in waited.tasks]) == (True, graph.tasks)
        assert (await client.cancel(graph.graph)).cancelled == []
        with pytest.raises(InvalidInput, match="is archived"):
            await client.retry(graph.tasks[2])
        with pytest.raises(NotFound):
            await client.show("gzzzzzzz.a")
        again = await client.submit([echo("other")], key="k")
        assert (again.graph, again.tasks, again.duplicate) == (graph.graph, graph.tasks, True)


async def test_pages_of_memory_and_archive_are_one_list(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        held = (await client.submit([TaskSpec(id="held", input={"argv": ["sleep", "600"]})])).tasks
        every, ended = list(held), []
        for _ in range(4):
            reply = await client.submit([echo("a"), echo("b")])
            waiting = await client.submit([echo("c", held[0])])
            every += [*reply.tasks, *waiting.tasks]
            ended += reply.tasks
        await client.wait(ended)
        await archived(client, len(ended))
        for limit in (1, 3, 100):
            assert await pages(client, limit) == every[::-1]
            assert await pages(client, limit, states=[State.SUCCEEDED]) == ended[::-1]
        assert await pages(client, 1, graph=ended[0].split(".")[0]) == ended[1::-1]
        assert (await client.list(states=[State.SUCCEEDED], limit=1)).total == len(ended)


async def pages(client: Client, limit: int, **filters: object) -> list[str]:
    names, after = [], ""
    while True:
        reply = await client.list(limit=limit, after=after, **filters)  # type: ignore[arg-type]
        names += [task.id for task in reply.tasks]
        after = reply.next
        if not after:
            return names


async def test_a_task_may_depend_on_an_archived_one_and_gets_its_output(daemon: DaemonProcess, tmp_path: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        first = (await client.submit([echo("a"), TaskSpec(id="bad", input={"argv": ["false"]}, max_retries=0)])).tasks
        await client.wait(first)
        await archived(client, 2)
        reply = await client.submit([echo("b", first[0]), echo("c", "b"), echo("d", first[1])])
        waited = await client.wait([reply.graph])
        assert [str(task.state) for task in waited.tasks] == ["succeeded", "succeeded", "failed"]
        assert waited.tasks[2].failure is not None
        assert waited.tasks[2].failure.code == "DEPENDENCY_FAILED"
        await archived(client, 5)
    daemon.kill()
    await daemon.start()
    async with daemon.client() as client:
        assert (await client.status()).archived == 5
        assert await pages(client, 2) == [*reply.tasks[::-1], *first[::-1]]
        assert (await client.show(reply.tasks[0])).dependencies == {first[0]: State.SUCCEEDED}


async def test_a_row_whose_graph_never_left_memory_is_not_shown_twice(daemon: DaemonProcess) -> None:
    """What a kill -9 leaves between the commit of the archive and the record that it is there."""
    daemon.config.write_text(CONFIG.replace("keep_ended = 0", "keep_ended = 100"))
    await daemon.start()
    async with daemon.client() as client:
        tasks = (await client.submit([echo("a")])).tasks
        await client.wait(tasks)
        await client.status()
    daemon.kill()
    graph = tasks[0].split(".")[0]
    with sqlite3.connect(daemon.state / "archive.db") as database:
        database.execute("insert into graphs values (?, '', 1.0, 10)", (graph,))
        database.execute("insert into newest values (?)", (graph,))
        database.execute("insert into tasks values (0, ?, ?, 'succeeded', x'c0')", (tasks[0], graph))
    database.close()
    await daemon.start()
    async with daemon.client() as client:
        assert await pages(client, 10) == tasks
        reply = await client.list()
        assert (reply.total, (await client.status()).archived) == (1, 0)


async def test_the_archive_itself_is_kept_within_its_bounds(daemon: DaemonProcess) -> None:
    daemon.config.write_text(CONFIG.replace("[tasks]", "[tasks]\narchive_bytes = 1500"))
    await daemon.start()
    async with daemon.client() as client:
        tasks = []
        for number in range(6):
            tasks += (await client.submit([echo(f"a{number}")])).tasks
            await client.wait(tasks[-1:])
        while await pages(client, 10, states=[State.SUCCEEDED]) == tasks[::-1] or sum((await client.status()).counts.values()):
            await asyncio.sleep(0.05)
        left = await pages(client, 10)
        assert left == tasks[::-1][: len(left)]
        gone = tasks[: len(tasks) - len(left)]
        assert gone
        with pytest.raises(NotFound):
            await client.show(gone[0])
    results = {path.name for path in (daemon.state / "results").glob("*.json")}
    logs = {path.name for path in (daemon.state / "logs").glob("*.log")}
    assert not results & {f"task_{name}.json" for name in gone}
    assert not logs & {f"task_{name}.log" for name in gone}
    assert results >= {f"task_{name}.json" for name in left}
