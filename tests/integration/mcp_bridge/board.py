"""A stand-in for the daemon behind a real RPC server: tasks on a board, ended by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from supervisord_agents.core.model import Failure, Result, State, TaskSpec
from supervisord_agents.errors import InvalidInput, NotFound, SupervisorError
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.rpc.server import Server
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.advice import Estimate, EstimateReply
from supervisord_agents.wire.changes import Apply, ApplyReply, Changes, ChangesReply, ChangeView, Discard, DiscardReply
from supervisord_agents.wire.story import Ask, AskReply, StoryReply, TellStory
from tests.support.rpc import ESTIMATE


class Board:
    """The handler. It outlives its servers, as a journal does; `received` holds every request."""

    def __init__(self) -> None:
        self.specs: dict[str, TaskSpec] = {}
        self.views: dict[str, m.TaskView] = {}
        self.outputs: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        self.received: list[m.Request] = []
        self.changed = asyncio.Condition()
        self.hold_answers: asyncio.Event | None = None
        """While it is set to an unset event: requests take effect, but their answers wait for it."""
        self.teller = "rules"
        self.refusal: SupervisorError | None = None
        """The answer to every submit, if set."""

    async def handle(self, request: m.Request, peer: Peer) -> m.Reply:
        async with self.changed:
            self.received.append(request)
            self.changed.notify_all()
        reply: m.Reply = await getattr(self, f"_{type(request).__name__.lower()}")(request)
        if self.hold_answers is not None:
            await self.hold_answers.wait()
        return reply

    async def subscribe(self, request: m.Subscribe, peer: Peer) -> AsyncGenerator[m.Item, None]:
        raise NotImplementedError
        yield

    async def until_received(self, kind: type[m.Request], count: int = 1) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: sum(isinstance(request, kind) for request in self.received) >= count)

    async def end(self, name: str, state: State = State.SUCCEEDED, output: Any = None, failure: Failure | None = None) -> None:
        """End a task, as a worker would."""
        self.outputs[name] = output
        await self.change(name, state=state, ended_at=time.time(), failure=failure)

    async def change(self, name: str, **fields: Any) -> None:
        async with self.changed:
            self.views[name] = msgspec.structs.replace(self.views[name], **fields)
            self.changed.notify_all()

    def submitted(self) -> list[m.Submit]:
        return [request for request in self.received if isinstance(request, m.Submit)]

    async def _submit(self, request: m.Submit) -> m.SubmitReply:
        if self.refusal is not None:
            raise self.refusal
        if any(not spec.input for spec in request.tasks):
            raise InvalidInput("names no program.", field="tasks[0].input.argv", hint="Give a list.")
        graph = self.keys.get(request.key) or f"g{len(self.keys) + 1}"
        duplicate = request.key in self.keys
        self.keys[request.key] = graph
        names = [f"{graph}.{spec.id or f't{number}'}" for number, spec in enumerate(request.tasks, start=1)]
        if not duplicate:
            for name, spec in zip(names, request.tasks, strict=True):
                self.specs[name], self.views[name] = spec, _running(name, graph, spec)
        return m.SubmitReply(graph=graph, tasks=names, duplicate=duplicate)

    async def _estimate(self, request: Estimate) -> EstimateReply:
        (spec,) = request.tasks
        return EstimateReply(tasks=[msgspec.structs.replace(ESTIMATE, type=spec.type, error=-1.0)], path_s=9.0, work_s=9.0)

    async def _wait(self, request: m.Wait) -> m.WaitReply:
        names = [name for item in request.tasks for name in self._named(item)]
        enough = any if request.mode == "any" else all

        def met() -> bool:
            return enough(self.views[name].ended for name in names)

        try:
            async with asyncio.timeout(request.timeout_s), self.changed:
                await self.changed.wait_for(met)
        except TimeoutError:
            pass
        return m.WaitReply(done=met(), tasks=[self.views[name] for name in names])

    async def _show(self, request: m.Show) -> m.ShowReply:
        (name,) = self._named(request.task)
        return m.ShowReply(
            task=self.views[name], spec=self.specs[name], dependencies={}, dependents=[], history=[], result_path="", log_path=""
        )

    async def _getresult(self, request: m.GetResult) -> m.ResultReply:
        (name,) = self._named(request.task)
        view = self.views[name]
        if not view.ended:
            raise NotFound(f"task {name} has no result yet, it is {view.state}.", field="task", hint=f"agentctl wait {name}")
        result = Result(
            task_id=name, status=view.state, attempt=1, output=self.outputs[name], error=view.failure, tokens_used=7, cost_usd=0.5
        )
        return m.ResultReply(result=result, path=f"/state/results/task_{request.task}.json")

    async def _cancel(self, request: m.Cancel) -> m.CancelReply:
        names = [name for name in self._named(request.task) if not self.views[name].ended]
        for name in names:
            await self.end(name, State.CANCELLED)
        return m.CancelReply(cancelled=names)

    async def _changes(self, request: Changes) -> ChangesReply:
        changes = [
            ChangeView(path="a.py", what="modified", kind="file"),
            ChangeView(path=".envrc", what="added", kind="file", protected=True),
        ]
        return ChangesReply(
            task=self._named(request.task)[0],
            attempt=1,
            mode="overlay",
            workspace="/project",
            state="kept",
            changes=changes,
            count=len(changes),
            diff="diff --git a/a.py b/a.py\n",
        )

    async def _apply(self, request: Apply) -> ApplyReply:
        return ApplyReply(task=self._named(request.task)[0], count=2)

    async def _discard(self, request: Discard) -> DiscardReply:
        return DiscardReply(task=self._named(request.task)[0], count=2)

    async def _listtasks(self, request: m.ListTasks) -> m.ListReply:
        views = self.views.values()
        found = [
            view for view in views if (not request.states or view.state in request.states) and request.graph in ("", view.graph)
        ]
        return m.ListReply(tasks=found[: request.limit], total=len(found))

    async def _status(self, request: m.Status) -> m.StatusReply:
        states = [view.state for view in self.views.values()]
        return m.StatusReply(
            version="0",
            pid=1,
            epoch="e",
            started_at=0.0,
            state_dir="/state",
            counts={str(state): states.count(state) for state in State},
            pools=[],
            recovery=m.Recovery(at=0.0, clean=True, records=0, tasks=0, requeued=0, adopted=0, torn_bytes=0, seconds=0.0),
            journal_bytes=0,
            journal_sequence=0,
            disk_free_bytes=0,
            accepting=False,
            cpu_seconds=0.0,
            rss_bytes=0,
            enforcement={},
            usage=m.Usage(),
            notes=["The disk is full."],
            paused=[m.PauseView(agent="qwen", at=0.0, reason="too dear")],
        )

    async def _tellstory(self, request: TellStory) -> StoryReply:
        runs = [name for name, view in self.views.items() if not view.ended]
        words = f"{len(runs)} run: {', '.join(runs)}."
        return StoryReply(
            graph=request.graph, at=1.0, summary=words, by=self.teller, told_at=1.0, open=len(runs), blocked_on=runs[:1]
        )

    async def _ask(self, request: Ask) -> AskReply:
        understood = "sing" not in request.question
        return AskReply(answer=f"{request.graph or 'all'} is well.", by=self.teller, citations=["g1.t2"], understood=understood)

    def _named(self, item: str) -> list[str]:
        names = [name for name, view in self.views.items() if item in (name, view.graph)]
        if not names:
            raise NotFound(f"no task is called `{item}`.", field="task", hint="See: agentctl list")
        return names


def _running(name: str, graph: str, spec: TaskSpec) -> m.TaskView:
    now = time.time()
    return m.TaskView(
        id=name,
        graph=graph,
        agent=spec.agent,
        type="",
        state=State.RUNNING,
        priority=spec.priority,
        attempt=1,
        max_retries=spec.max_retries,
        submitted_at=now,
        started_at=now,
    )


@asynccontextmanager
async def serving(board: Board, socket: Path) -> AsyncIterator[Server]:
    """A daemon with this board, stopped in order at the end."""
    server = Server(board, epoch="e")
    await server.start(socket)
    try:
        yield server
    finally:
        await server.aclose()
