"""The bridge and its client outlive the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mcp.client.client import Client as McpClient

from supervisord_agents.errors import QueueFull, Unavailable
from supervisord_agents.mcp_bridge.link import Link
from supervisord_agents.mcp_bridge.server import server_of
from supervisord_agents.mcp_bridge.tools import Tools
from supervisord_agents.rpc.channel import LOST
from supervisord_agents.wire.messages import Submit, Wait
from tests.integration.mcp_bridge.board import Board, serving
from tests.support.mcp_session import McpSession, ToolFailed, mcp_session


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "supervisor.sock"


async def test_a_wait_goes_on_with_the_next_daemon(socket: Path, tmp_path: Path) -> None:
    board = Board()
    async with mcp_session(socket, tmp_path) as session:
        async with serving(board, socket):
            await session.call("delegate", tasks=[{"argv": ["a"]}])
            waiting = asyncio.create_task(session.call("wait", ids=["g1"]))
            await board.until_received(Wait)
        assert not waiting.done()
        seen = sum(isinstance(request, Wait) for request in board.received)
        async with serving(board, socket):
            await board.until_received(Wait, seen + 1)
            await board.end("g1.t1", output="after the restart")
            assert (await waiting)["tasks"][0]["output"] == "after the restart"


async def test_a_delegate_whose_answer_was_lost_is_repeated_with_its_key(socket: Path, tmp_path: Path) -> None:
    board = Board()
    board.hold_answers = asyncio.Event()
    async with mcp_session(socket, tmp_path) as session:
        async with serving(board, socket):
            delegating = asyncio.create_task(session.call("delegate", tasks=[{"argv": ["a"]}]))
            await board.until_received(Submit)
        board.hold_answers = None
        async with serving(board, socket):
            assert await delegating == {"graph": "g1", "tasks": ["g1.t1"]}
        assert len(board.submitted()) == 2
        assert list(board.keys.values()) == ["g1"]


async def test_a_session_may_begin_before_the_daemon(socket: Path, tmp_path: Path) -> None:
    board = Board()
    told: asyncio.Queue[str | None] = asyncio.Queue()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.put_nowait(message)

    async with mcp_session(socket, tmp_path, mode="legacy") as session:
        asking = asyncio.create_task(session.call("status", on_progress))
        message = await told.get()
        assert message is not None
        assert "the supervisor is away" in message
        async with serving(board, socket):
            assert "counts" in await asking


async def test_when_patience_ends_the_agent_is_told_how_to_go_on(socket: Path, tmp_path: Path) -> None:
    tools = Tools(Link(socket, patience_s=0.2), tmp_path)
    async with McpClient(server_of(tools)) as client:
        session = McpSession(client)
        with pytest.raises(ToolFailed, match=r"no supervisor listens here.*agent-supervisor"):
            await session.call("wait", ids=["g1"])
        with pytest.raises(ToolFailed, match=r"None of the tasks was accepted.*agent-supervisor"):
            await session.call("delegate", tasks=[{"argv": ["a"]}], key="mine")


async def refused(socket: Path, tmp_path: Path, patience_s: float = 5.0) -> str:
    """What the agent is told when it delegates."""
    async with Link(socket, patience_s) as link, McpClient(server_of(Tools(link, tmp_path))) as client:
        with pytest.raises(ToolFailed) as caught:
            await McpSession(client).call("delegate", tasks=[{"argv": ["a"]}], key="mine")
        return str(caught.value)


async def test_a_full_queue_is_told_at_once_in_the_daemon_s_words(socket: Path, tmp_path: Path) -> None:
    board = Board()
    board.refusal = QueueFull("too many.", kept="Nothing of this graph was accepted.", hint="Wait for some to end.")
    async with serving(board, socket):
        said = await refused(socket, tmp_path)
    assert said.endswith("too many. Nothing of this graph was accepted. Wait for some to end.")
    assert len(board.submitted()) == 1


async def test_a_user_who_is_not_let_in_is_told_so_at_once(socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Board(), socket) as server:
        monkeypatch.setattr(server, "_uids", frozenset[int]())
        said = await refused(socket, tmp_path)
    assert "may not use this supervisor" in said
    assert "accepted" not in said


async def test_a_daemon_that_stops_is_waited_for_and_what_it_said_is_kept(socket: Path, tmp_path: Path) -> None:
    board = Board()
    board.refusal = Unavailable("the supervisor is stopping.", kept="Nothing of this graph was accepted.")
    async with serving(board, socket):
        said = await refused(socket, tmp_path, patience_s=0.2)
    assert len(board.submitted()) > 1
    assert "Nothing of this graph was accepted." in said
    assert "not known" not in said


async def test_whether_tasks_may_have_been_accepted_is_told_as_it_is(socket: Path, tmp_path: Path) -> None:
    assert "None of the tasks was accepted." in await refused(socket, tmp_path, patience_s=0.1)
    board = Board()
    board.refusal = Unavailable("the connection to the supervisor was lost.", kept=LOST)
    async with serving(board, socket):
        assert "not known whether the tasks were accepted" in await refused(socket, tmp_path, patience_s=0.1)


async def test_a_daemon_that_does_not_answer_counts_as_away(socket: Path) -> None:
    board = Board()
    board.hold_answers = asyncio.Event()
    said: list[str] = []

    async def away(message: str) -> None:
        said.append(message)

    async with serving(board, socket), Link(socket, patience_s=0.3) as link:
        with pytest.raises(Unavailable, match="gave no answer"):
            await link.call(lambda client: client.status(), away=away, answer_within_s=0.1)
        assert said
        board.hold_answers = None
        assert (await link.call(lambda client: client.status(), away=away)).pid == 1


async def test_an_answer_of_the_daemon_costs_nobody_the_connection(socket: Path) -> None:
    board = Board()

    async def away(message: str) -> None:
        raise AssertionError(message)

    async with serving(board, socket), Link(socket) as link:
        first = await link.call(_itself, away=away)
        with pytest.raises(Exception, match="no task is called"):
            await link.call(lambda client: client.show("nothing"), away=away)
        assert await link.call(_itself, away=away) is first


async def _itself(client: object) -> object:
    return client
