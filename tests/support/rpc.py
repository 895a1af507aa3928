"""A handler of canned answers, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Self

import msgspec

from supervisord_agents.core.eta import Eta
from supervisord_agents.core.model import Result, State, TaskSpec, Usage
from supervisord_agents.errors import SupervisorError
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.advice import Estimate, EstimateReply, TaskEstimate
from supervisord_agents.wire.breakers import Breakers, BreakersReply, BreakerView, ResetBreaker, ResetBreakerReply
from supervisord_agents.wire.changes import Apply, ApplyReply, Changes, ChangesReply, ChangeView, Discard, DiscardReply
from supervisord_agents.wire.graph import GraphReply, ShowGraph, TaskTimes
from supervisord_agents.wire.letters import Drop, DropReply, LetterNote, LettersReply, ListLetters, Requeue, RequeueReply
from supervisord_agents.wire.story import Ask, AskReply, StoryReply, StoryTask, TellStory

MAX_FRAME_BYTES = 1024 * 1024
"""Of the server under test; `huge` answers are larger."""
VIEW = m.TaskView(
    id="g1.a", graph="g1", agent="command", type="", state=State.RUNNING, priority=5, attempt=1, max_retries=3, submitted_at=1.0
)
ESTIMATE = TaskEstimate(
    id="a",
    agent="qwen",
    type="review",
    pool="p",
    advice="delegate",
    reason="it takes about 9 s; a worker is free for it",
    seconds=9.0,
    low_s=7.0,
    high_s=12.0,
    method="average",
    error=0.125,
    observations=30,
    cold=True,
    overhead_s=0.25,
    idle=2,
    before=0,
    wait_s=0.0,
    input_bytes=40,
    workspace_bytes=0,
    copy_s=0.0,
    timeout_s=600.0,
)
BREAKER = BreakerView(kind="agent", name="qwen", state="open", failures=5, limit=5, failed_at=1.0)
RECOVERY = m.Recovery(at=0.0, clean=True, records=0, tasks=0, requeued=0, adopted=0, torn_bytes=0, seconds=0.0)
REPLIES: dict[type[m.Request], m.Reply] = {
    TellStory: StoryReply(
        graph="g1",
        at=1.0,
        summary="1 runs: g1.a.",
        by="rules",
        told_at=1.0,
        counts={"running": 1},
        open=1,
        blocked_on=["g1.a"],
        next_actionable=["g1.c"],
        tasks=[StoryTask(id="g1.b", status=State.BLOCKED, waits_for=["g1.a"])],
        eta=Eta(low_s=1.0, usual_s=2.0, high_s=4.0, unknown=1),
    ),
    Ask: AskReply(answer="g1.b waits for g1.a.", by="rules", citations=["g1.a", "g1.b"], understood=True),
    m.Submit: m.SubmitReply(graph="g1", tasks=["g1.a"]),
    m.ListTasks: m.ListReply(tasks=[VIEW], total=1, next="more"),
    m.Show: m.ShowReply(
        task=VIEW,
        spec=TaskSpec(id="a"),
        dependencies={"g0.x": State.DEAD},
        dependents=[],
        history=[],
        result_path="/r",
        log_path="/l",
    ),
    m.Wait: m.WaitReply(done=True, tasks=[VIEW]),
    m.GetResult: m.ResultReply(result=Result(task_id="g1.a", output={"text": "é"}), path="/r"),
    m.Cancel: m.CancelReply(cancelled=["g1.a"]),
    m.Retry: m.RetryReply(tasks=["g1.a"]),
    m.Pause: m.PauseReply(paused=[m.PauseView(pool="p", at=1.0, client="0", reason="r")], stopped=["g1.a"], running=2),
    m.Unpause: m.UnpauseReply(paused=[]),
    m.Why: m.WhyReply(task=VIEW, reasons=["it waits"]),
    ListLetters: LettersReply(letters=[], total=0, next="g1.b"),
    Requeue: RequeueReply(tasks=["g1.a"], count=1, refused=(LetterNote(task="g1.b", why="no"),)),
    Drop: DropReply(tasks=["g1.a"], count=1),
    Breakers: BreakersReply(breakers=[BREAKER]),
    ResetBreaker: ResetBreakerReply(breakers=[BREAKER]),
    Estimate: EstimateReply(tasks=[ESTIMATE], path_s=9.0, work_s=9.0),
    ShowGraph: GraphReply(
        graph="g1",
        at=1.0,
        tasks=[TaskTimes(id="g1.a", state=State.READY, pool="p", priority=5, estimate_s=1.0, estimated=False, end_s=1.0)],
        total=1,
        open=1,
    ),
    m.GetLogs: m.LogsReply(data=b"\x00\xff", offset=2, ended=False),
    Changes: ChangesReply(
        task="g1.a",
        attempt=1,
        mode="copy",
        workspace="/w",
        state="kept",
        changes=[ChangeView(path="a", what="added", kind="file")],
        count=1,
    ),
    Apply: ApplyReply(task="g1.a", count=1),
    Discard: DiscardReply(task="g1.a", count=1),
    m.Status: m.StatusReply(
        version="1",
        pid=1,
        epoch="e",
        started_at=1.0,
        state_dir="/s",
        counts={"ready": 1},
        pools=[m.PoolView(name="p", min_workers=0, max_workers=1, busy=0, idle=0, waiting=1)],
        recovery=RECOVERY,
        journal_bytes=1,
        journal_sequence=2,
        disk_free_bytes=3,
        accepting=True,
        cpu_seconds=0.5,
        rss_bytes=4,
        enforcement={"seccomp": "on"},
        usage=Usage(input_tokens=7),
    ),
}


class CannedHandler:
    """Answers from REPLIES, and does what the first word of a task's or graph's name says:

    `fail…` raises `error`; `break…` raises RuntimeError; `hold…` waits for `released`; `huge…` answers more than a frame holds.
    """

    def __init__(self) -> None:
        self.error: SupervisorError = SupervisorError("not set")
        self.released = asyncio.Event()
        self.requests: list[m.Request] = []
        self.peers: list[Peer] = []
        self.held = 0
        self.held_changed = asyncio.Condition()
        self.pulled = 0
        self.item_bytes = 0
        self.huge_bytes = MAX_FRAME_BYTES

    async def handle(self, request: m.Request, peer: Peer) -> m.Reply:
        self.requests.append(request)
        self.peers.append(peer)
        named = getattr(request, "task", "") or next(iter(getattr(request, "tasks", [])), "")
        name = named.id if isinstance(named, TaskSpec) else named
        if isinstance(name, str):
            await self._obey(name)
            if name.startswith("huge"):
                return m.LogsReply(data=bytes(self.huge_bytes), offset=0, ended=True)
        return REPLIES[type(request)]

    async def subscribe(self, request: m.Subscribe, peer: Peer) -> AsyncGenerator[m.Item, None]:
        """Numbered items, without end; two for the graph `two`."""
        self.requests.append(request)
        await self._obey(request.graph)
        async with _Held(self):
            for number in itertools.count(1):
                self.pulled = number
                yield m.Item(kind="log", token=f"{number}.1", at=0.0, data=bytes(self.item_bytes))
                if request.graph == "two" and number == 2:
                    return
                await asyncio.sleep(0)

    async def until_held(self, count: int) -> None:
        """Wait until so many calls and streams are held."""
        async with self.held_changed:
            await self.held_changed.wait_for(lambda: self.held == count)

    async def _obey(self, name: str) -> None:
        if name.startswith("fail"):
            raise self.error
        if name.startswith("break"):
            raise RuntimeError("the handler broke")
        if name.startswith("hold"):
            async with _Held(self):
                await self.released.wait()


class _Held:
    def __init__(self, handler: CannedHandler) -> None:
        self._handler = handler

    async def __aenter__(self) -> None:
        await self._change(1)

    async def __aexit__(self, *_: object) -> None:
        await self._change(-1)

    async def _change(self, by: int) -> None:
        async with self._handler.held_changed:
            self._handler.held += by
            self._handler.held_changed.notify_all()


class RawClient:
    """Sends any bytes, reads answers as plain lists."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path, *, hello: bool = True) -> Self:
        client = cls(*await asyncio.open_unix_connection(path))
        if hello:
            client.call(0, type="hello", version=m.PROTOCOL_VERSION)
            assert (await client.answer())[:2] == [0, None]
        return client

    def call(self, id: object, **request: Any) -> None:
        self.payload(msgspec.msgpack.encode([id, request]))

    def payload(self, payload: bytes) -> None:
        self.writer.write(struct.pack("<I", len(payload)) + payload)

    async def answer(self) -> list[Any]:
        """`[id, error, body, more]`."""
        (length,) = struct.unpack("<I", await self._reader.readexactly(4))
        answer: list[Any] = msgspec.msgpack.decode(await self._reader.readexactly(length))
        return answer

    async def error(self) -> tuple[int, dict[str, str]]:
        """The id and the error of the next answer."""
        id, error, body, more = await self.answer()
        assert (body, more) == (None, False)
        assert error is not None
        return id, error

    async def at_end(self) -> bool:
        """Whether the daemon has closed; waits for a byte or the end."""
        try:
            return await self._reader.read(1) == b""
        except ConnectionResetError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
