"""The bridge before a whole daemon that crashes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess
from tests.support.mcp_session import ToolFailed, mcp_session

DELEGATED = 40


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


async def test_a_wait_survives_a_crash_of_the_daemon(daemon: DaemonProcess, project: Path) -> None:
    await daemon.start()
    async with mcp_session(daemon.socket, project) as session:
        script = "until test -e go; do sleep 0.05; done; echo went > done; cat done"
        tasks = [{"id": "A", "argv": ["sh", "-c", script]}, {"id": "B", "argv": ["cat", "done"], "depends_on": ["A"]}]
        graph = (await session.call("delegate", tasks=tasks))["graph"]
        while not (await session.call("status", graph=graph)).get("running"):
            await asyncio.sleep(0.05)
        waiting = asyncio.create_task(session.call("wait", ids=[graph]))
        daemon.kill()
        (project / "go").touch()
        await daemon.start()
        ended = await waiting
        assert ended["counts"] == {"succeeded": 2}
        assert [task["output"]["stdout"] for task in ended["tasks"]] == ["went\n", "went\n"]
        result = await session.call("result", id=f"{graph}.B")
        assert result["output"]["exit_code"] == 0
        assert Path(result["path"]).is_file()


async def test_delegates_over_a_crash_are_accepted_once_each(daemon: DaemonProcess, project: Path) -> None:
    await daemon.start()
    async with mcp_session(daemon.socket, project) as session:
        tasks = [{"argv": ["true"], "workspace": "none"}]
        delegating = [asyncio.create_task(session.call("delegate", tasks=tasks)) for _ in range(DELEGATED)]
        await asyncio.wait(delegating, return_when=asyncio.FIRST_COMPLETED)
        daemon.kill()
        await daemon.start()
        graphs = {answer["graph"] for answer in await asyncio.gather(*delegating)}
        assert len(graphs) == DELEGATED
        ended = await session.call("wait", ids=sorted(graphs))
        assert ended["counts"] == {"succeeded": DELEGATED}
        assert (await session.call("status"))["counts"] == {"succeeded": DELEGATED}


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"argv": []}, "tasks[0].argv"),
    ({"argv": ["true"], "workspace": "nowhere"}, "tasks[0].workspace"),
    ({"argv": ["true"], "depends_on": ["B"]}, "tasks[0].depends_on[0]"),
    ({"agent": "nobody", "prompt": "x"}, "tasks[0].agent"),
    ({"argv": ["true"], "max_retries": 101}, "tasks[0].max_retries"),
]


async def test_the_daemon_s_refusals_are_in_the_tools_words(daemon: DaemonProcess, project: Path) -> None:
    await daemon.start()
    async with mcp_session(daemon.socket, project) as session:
        for task, words in REFUSED:
            with pytest.raises(ToolFailed) as caught:
                await session.call("delegate", tasks=[{"agent": "command", **task}])
            assert words in str(caught.value), task
