"""Calls and their answers over a real Unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from supervisord_agents import __version__
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import (
    DiskFull,
    ErrorCode,
    Forbidden,
    InvalidInput,
    NotFound,
    ProtocolError,
    QueueFull,
    SandboxRefused,
    SupervisorError,
    Unavailable,
)
from supervisord_agents.rpc.client import Client
from supervisord_agents.rpc.server import Server
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.advice import Estimate
from supervisord_agents.wire.breakers import Breakers, ResetBreaker
from supervisord_agents.wire.changes import Apply, Changes, Discard
from supervisord_agents.wire.graph import ShowGraph
from supervisord_agents.wire.letters import Drop, ListLetters, Requeue
from supervisord_agents.wire.methods import METHODS
from supervisord_agents.wire.story import Ask, TellStory
from tests.support.rpc import MAX_FRAME_BYTES, REPLIES, CannedHandler, RawClient

pytestmark = pytest.mark.usefixtures("server")
SPEC = TaskSpec(id="a", input={"argv": ["true", "é"]}, dependencies=("g0.x",))

METHOD_CALLS: list[tuple[Callable[[Client], Coroutine[Any, Any, m.Reply]], m.Request]] = [
    (lambda client: client.submit([SPEC], key="k"), m.Submit(tasks=[SPEC], key="k")),
    (
        lambda client: client.list(states=[State.DEAD], graph="g1", limit=3, after="x"),
        m.ListTasks(states=[State.DEAD], graph="g1", limit=3, after="x"),
    ),
    (lambda client: client.show("g1.a"), m.Show(task="g1.a")),
    (lambda client: client.wait(["g1.a"], mode="any", timeout_s=1.5), m.Wait(tasks=["g1.a"], mode="any", timeout_s=1.5)),
    (lambda client: client.result("g1.a"), m.GetResult(task="g1.a")),
    (lambda client: client.cancel("g1.a", subtree=False, reason="r"), m.Cancel(task="g1.a", subtree=False, reason="r")),
    (lambda client: client.retry("g1.a"), m.Retry(task="g1.a")),
    (
        lambda client: client.pause(pool="p", agent="a", stop=True, reason="r"),
        m.Pause(pool="p", agent="a", stop=True, reason="r"),
    ),
    (lambda client: client.resume(pool="p", agent="a", everything=True), m.Unpause(pool="p", agent="a", everything=True)),
    (lambda client: client.why("g1.a"), m.Why(task="g1.a")),
    (lambda client: client.letters(task="g1", limit=7, after="g1.b"), ListLetters(task="g1", limit=7, after="g1.b")),
    (lambda client: client.requeue(["g1.a"]), Requeue(tasks=("g1.a",))),
    (lambda client: client.drop(everything=True, reason="r"), Drop(everything=True, reason="r")),
    (lambda client: client.breakers(), Breakers()),
    (lambda client: client.reset_breaker("agent", "qwen"), ResetBreaker(kind="agent", name="qwen")),
    (lambda client: client.estimate([SPEC]), Estimate(tasks=[SPEC])),
    (
        lambda client: client.graph("g1", limit=3, after="x", edges=True),
        ShowGraph(graph="g1", limit=3, after="x", edges=True),
    ),
    (lambda client: client.story("g1", wait_s=2), TellStory(graph="g1", wait_s=2)),
    (lambda client: client.ask("why?", "g1"), Ask(question="why?", graph="g1")),
    (lambda client: client.logs("g1.a", offset=5, limit_bytes=6), m.GetLogs(task="g1.a", offset=5, limit_bytes=6)),
    (lambda client: client.changes("g1.a", diff=False), Changes(task="g1.a", diff=False)),
    (lambda client: client.apply("g1.a", protected=True), Apply(task="g1.a", protected=True)),
    (lambda client: client.discard("g1.a"), Discard(task="g1.a")),
    (lambda client: client.status(), m.Status()),
]


async def test_every_method_goes_there_and_back(handler: CannedHandler, socket_path: Path) -> None:
    assert {type(request) for _, request in METHOD_CALLS} | {m.Hello, m.Subscribe} == set(METHODS)
    async with await Client.connect(socket_path, name="test") as client:
        for call, request in METHOD_CALLS:
            assert await call(client) == REPLIES[type(request)]
            assert handler.requests[-1] == request


async def test_the_defaults_of_the_methods_are_those_of_the_requests(handler: CannedHandler, socket_path: Path) -> None:
    async with await Client.connect(socket_path) as client:
        await client.submit([])
        await client.list()
        await client.wait([])
        await client.cancel("t")
        await client.logs("t")
        async for _ in client.subscribe(graph="two"):
            pass
    assert handler.requests == [
        m.Submit(tasks=[]),
        m.ListTasks(),
        m.Wait(tasks=[]),
        m.Cancel(task="t"),
        m.GetLogs(task="t"),
        m.Subscribe(graph="two"),
    ]


async def test_the_handshake_tells_who_the_daemon_is_and_the_handler_who_the_client_is(
    handler: CannedHandler, socket_path: Path
) -> None:
    async with await Client.connect(socket_path) as client:
        assert client.hello == m.HelloReply(
            version=m.PROTOCOL_VERSION, daemon=__version__, pid=os.getpid(), epoch="e1", max_frame_bytes=MAX_FRAME_BYTES
        )
        await client.status()
    peer = handler.peers[0]
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == set(os.getgroups())


@pytest.mark.parametrize("kind", [InvalidInput, NotFound, Unavailable, QueueFull, Forbidden, DiskFull, SandboxRefused])
async def test_an_error_arrives_whole_and_as_its_own_class(
    handler: CannedHandler, socket_path: Path, kind: type[SupervisorError]
) -> None:
    handler.error = kind("it went wrong.", field="tasks[0].id", kept="All is kept.", hint="Do this.")
    async with await Client.connect(socket_path) as client:
        with pytest.raises(kind) as caught:
            await client.show("fail")
        assert type(caught.value) is kind
        assert vars(caught.value) == vars(handler.error)
        assert caught.value.code == kind.code
        assert (await client.status()).accepting


async def test_a_code_without_a_class_is_kept(handler: CannedHandler, socket_path: Path) -> None:
    handler.error = SupervisorError("dead.", code=ErrorCode.WORKER_DIED)
    async with await Client.connect(socket_path) as client:
        with pytest.raises(SupervisorError) as caught:
            await client.show("fail")
    assert caught.value.code is ErrorCode.WORKER_DIED


async def test_an_unexpected_exception_gives_a_reference_that_the_log_has_with_the_traceback(socket_path: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        async with await Client.connect(socket_path) as client:
            with pytest.raises(SupervisorError) as caught:
                await client.show("break")
            assert (await client.status()).accepting
    assert caught.value.code is ErrorCode.INTERNAL
    assert "the handler broke" not in str(caught.value)
    entry = next(entry for entry in logged if entry["event"] == "call_failed")
    assert entry["reference"] in caught.value.message
    assert entry["method"] == "show"
    assert str(entry["exc_info"]) == "the handler broke"


async def test_an_answer_over_the_limit_is_an_error_and_the_connection_stays(socket_path: Path) -> None:
    async with await Client.connect(socket_path) as client:
        with pytest.raises(InvalidInput, match="the limit of a frame"):
            await client.logs("huge")
        assert (await client.status()).accepting


async def test_a_request_over_the_limit_or_not_encodable_is_refused_before_it_is_sent(socket_path: Path) -> None:
    async with await Client.connect(socket_path) as client:
        with pytest.raises(ProtocolError, match=f"the limit is {MAX_FRAME_BYTES}"):
            await client.submit([TaskSpec(input={"text": "x" * MAX_FRAME_BYTES})])
        with pytest.raises(InvalidInput, match="cannot be sent"):
            await client.submit([TaskSpec(input={"thing": object()})])
        assert (await client.retry("t")).tasks


async def test_pipelined_calls_are_answered_as_they_end(handler: CannedHandler, socket_path: Path) -> None:
    raw = await RawClient.connect(socket_path)
    raw.call(1, type="show", task="hold")
    for id in (2, 3, 4):
        raw.call(id, type="retry", task="t")
    assert [(await raw.answer())[0] for _ in range(3)] == [2, 3, 4]
    handler.released.set()
    assert (await raw.answer())[0] == 1
    await raw.close()


async def test_many_calls_at_once_each_get_their_own_answer(socket_path: Path) -> None:
    async with await Client.connect(socket_path) as client:
        calls = [client.retry("t") if number % 2 else client.cancel("t") for number in range(5_000)]
        replies = await asyncio.gather(*calls)
    assert all(isinstance(reply, m.RetryReply if number % 2 else m.CancelReply) for number, reply in enumerate(replies))


async def test_a_cancelled_call_leaves_the_client_usable(handler: CannedHandler, socket_path: Path) -> None:
    async with await Client.connect(socket_path) as client:
        waiting = asyncio.create_task(client.wait(["hold"]))
        await handler.until_held(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        handler.released.set()
        assert (await client.show("t")) == REPLIES[m.Show]


async def test_calls_go_on_while_a_client_waits(handler: CannedHandler, socket_path: Path) -> None:
    async with await Client.connect(socket_path) as client:
        waiting = asyncio.create_task(client.wait(["hold"]))
        await handler.until_held(1)
        assert (await client.status()).accepting
        assert not waiting.done()
        handler.released.set()
        assert (await waiting).done


async def test_a_client_that_leaves_cancels_its_waits(handler: CannedHandler, socket_path: Path) -> None:
    raw = await RawClient.connect(socket_path)
    for id in range(1, 4):
        raw.call(id, type="wait", tasks=["hold"])
    raw.call(4, type="subscribe")
    await handler.until_held(4)
    await raw.close()
    await handler.until_held(0)


async def test_a_stop_answers_what_is_open(
    handler: CannedHandler, socket_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisord_agents.rpc.server.STOP_GRACE_S", 0.2)
    async with await Client.connect(socket_path) as client:
        calls = [asyncio.create_task(call) for call in (client.wait(["hold"]), client.show("hold"))]
        stream = client.subscribe(graph="hold")
        item = asyncio.ensure_future(anext(stream))
        await handler.until_held(3)
        await server.aclose()
        for call in (*calls, item):
            with pytest.raises(Unavailable, match="stop"):
                await call
        assert handler.held == 0
        with pytest.raises(Unavailable, match="lost"):
            await client.status()
    assert not socket_path.exists()
