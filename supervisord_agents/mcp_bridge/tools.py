"""The tools. Their docstrings and parameter descriptions are what the primary agent reads, and pays for with its context."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from supervisord_agents.core.model import Result, State
from supervisord_agents.core.pauses import Scope
from supervisord_agents.errors import NotFound, Unavailable
from supervisord_agents.mcp_bridge import answers, specs
from supervisord_agents.mcp_bridge.link import Link
from supervisord_agents.mcp_bridge.progress import Progress
from supervisord_agents.mcp_bridge.shapes import (
    DEFAULT_WAIT_S,
    Action,
    Cancelled,
    Changed,
    Delegated,
    Estimated,
    Limits,
    Mode,
    StatusNow,
    Task,
    TaskResult,
    Waited,
    WaitSeconds,
    Work,
)
from supervisord_agents.rpc.channel import LOST
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire.messages import ListReply, StatusReply, TaskView, WaitReply
from supervisord_agents.wire.story import AskReply, StoryReply

AnyContext = Context[Any, Any]
RUNNING_SHOWN = 20
WORDS_S = 0.3
"""So long `status` waits for a model's words."""
FAILED_SHOWN = 10
SHORTEST_ASK_S = 0.05
LEAST_PATIENCE_S = 5.0
"""Of a `wait` that is about to end anyway: with it, and an answer at the last moment, one of 50 s stays under 60 s."""
ANSWER_GRACE_S = 5.0


class Tools:
    """What a session can do. `project` is where the workers of its tasks may work, None for nowhere."""

    def __init__(self, link: Link, project: Path | None) -> None:
        self._link = link
        self._project = project

    async def delegate(
        self,
        tasks: list[Task],
        context: AnyContext,
        key: Annotated[str, Field(description="The same key never runs the same call twice")] = "",
        budget: Annotated[Limits | None, Field(description="For all tasks together")] = None,
    ) -> Delegated:
        """Give tasks (one, or a graph by depends_on) to sandboxed worker agents. Returns their ids at once; then call wait."""
        specifications = specs.specs_of(tasks, self._project)
        used_key = key or f"mcp-{uuid.uuid4().hex}"
        asked = False

        async def submit(client: Client) -> Delegated:
            nonlocal asked
            asked = True
            reply = await client.submit(specifications, key=used_key, budget=specs.budget_of(budget))
            return answers.delegated(reply, self._workspace_note(tasks))

        try:
            return await self._link.call(submit, away=Progress(context, self._link.patience_s).say)
        except Unavailable as error:
            if error.kept and error.kept != LOST:
                raise
            kept = f"It is not known whether the tasks were accepted: call delegate again with them and key={used_key}."
            raise Unavailable(
                error.message, field=error.field, kept=kept if asked else "None of the tasks was accepted.", hint=error.hint
            ) from error

    async def estimate(self, task: Work, context: AnyContext) -> Estimated:
        """How long a task would take, and whether to delegate it, do it yourself or split it."""
        specifications = specs.specs_of([Task(**task.model_dump())], self._project)

        async def ask(client: Client) -> Estimated:
            (found,) = (await client.estimate(specifications)).tasks
            return answers.estimated(found)

        return await self._link.call(ask, away=Progress(context, self._link.patience_s).say)

    async def wait(
        self,
        ids: Annotated[list[str], Field(description="Task ids, or a graph id for all its tasks")],
        context: AnyContext,
        mode: Mode = "all",
        timeout_s: WaitSeconds = DEFAULT_WAIT_S,
    ) -> Waited:
        """Wait until tasks end. If `done` is false, call it again."""
        progress = Progress(context, timeout_s)
        while True:
            reply = await self._ask_wait(ids, mode, timeout_s - progress.elapsed_s, progress)
            if reply.done or progress.elapsed_s >= timeout_s:
                break
            await progress.say(answers.progress_summary(reply.tasks))
        results = await self._results(answers.most_telling(reply.tasks), progress)
        return answers.waited(reply.done, mode, reply.tasks, results, time.time())

    async def status(
        self,
        context: AnyContext,
        graph: Annotated[str, Field(description="Only this graph")] = "",
        question: str = "",
    ) -> StatusNow:
        """How things are: what runs, failed and why, is blocked on what, is next."""

        async def ask(client: Client) -> StatusNow:
            running = await client.list(states=[State.RUNNING], graph=graph, limit=RUNNING_SHOWN)
            failed = await client.list(states=[State.FAILED, State.DEAD], graph=graph, limit=answers.MAX_LINES)
            told = await client.story(graph, wait_s=WORDS_S)
            asked = await client.ask(question, graph) if question.strip() else None
            if graph:
                return _status(await _counts(client, graph), running, failed, told, asked, [])
            now = await client.status()
            return _status(now.counts, running, failed, told, asked, _notes(now))

        return await self._link.call(ask, away=Progress(context, self._link.patience_s).say)

    async def result(self, id: str, context: AnyContext) -> TaskResult:
        """Output, error, tokens and cost of a task that ended."""

        async def ask(client: Client) -> TaskResult:
            reply = await client.result(id)
            return answers.result(reply.result, reply.path)

        return await self._link.call(ask, away=Progress(context, self._link.patience_s).say)

    async def cancel(
        self,
        id: Annotated[str, Field(description="Task (with all that depend on it) or graph")],
        context: AnyContext,
        reason: str = "",
    ) -> Cancelled:
        """Stop tasks."""

        async def ask(client: Client) -> Cancelled:
            reply = await client.cancel(id, reason=reason)
            return answers.cancelled(reply.cancelled, reply.count)

        return await self._link.call(ask, away=Progress(context, self._link.patience_s).say)

    async def changes(self, id: str, context: AnyContext, action: Action = "show") -> Changed:
        """What a task changed in its copy of the workspace (workspace_mode); apply (all or nothing) or discard it."""

        async def ask(client: Client) -> Changed:
            if action == "show":
                return answers.changed(await client.changes(id))
            if action == "apply":
                applied = await client.apply(id)
                return Changed(id=applied.task, state="applied", count=applied.count)
            discarded = await client.discard(id)
            return Changed(id=discarded.task, state="discarded", count=discarded.count)

        return await self._link.call(ask, away=Progress(context, self._link.patience_s).say)

    def _workspace_note(self, tasks: list[Task]) -> str:
        if self._project is None and any(task.workspace == "." for task in tasks):
            return (
                "This bridge does not run in a project: the tasks got private empty workspaces. Set `workspace` to share files."
            )
        return ""

    async def _ask_wait(self, ids: list[str], mode: Mode, left_s: float, progress: Progress) -> WaitReply:
        """Wait at the supervisor until the next notification is due, the time is over, or the tasks have ended."""
        slice_s = max(0.0, min(left_s, max(progress.due_in_s, SHORTEST_ASK_S)))
        return await self._link.call(
            lambda client: client.wait(ids, mode=mode, timeout_s=slice_s),
            away=progress.say,
            patience_s=max(LEAST_PATIENCE_S, left_s),
            answer_within_s=slice_s + ANSWER_GRACE_S,
        )

    async def _results(self, views: list[TaskView], progress: Progress) -> dict[str, Result]:
        """The results of the first tasks that have one, by id."""
        ended = [view.id for view in views if view.ended][: answers.MAX_PREVIEWS]

        async def ask(client: Client) -> dict[str, Result]:
            results = await asyncio.gather(*(_result_of(client, name) for name in ended))
            return {name: result for name, result in zip(ended, results, strict=True) if result is not None}

        return await self._link.call(ask, away=progress.say, patience_s=LEAST_PATIENCE_S) if ended else {}


async def _result_of(client: Client, task: str) -> Result | None:
    """None if there is none after all, since somebody has just had the task run again."""
    try:
        return (await client.result(task)).result
    except NotFound:
        return None


async def _counts(client: Client, graph: str) -> dict[str, int]:
    replies = await asyncio.gather(*(client.list(states=[state], graph=graph, limit=1) for state in State))
    return {str(state): reply.total for state, reply in zip(State, replies, strict=True)}


def _notes(status: StatusReply) -> list[str]:
    refused = [] if status.accepting else ["New tasks are refused at the moment."]
    paused = [
        f"A person has paused {Scope(one.pool, one.agent)}{f' ({one.reason})' if one.reason else ''}: nothing of it is started."
        for one in status.paused
    ]
    dead = [f"{status.letters} dead tasks wait for a person: agentctl dlq list"] if status.letters else []
    still = status.standstill
    stands = [f"Nothing runs, and nothing will by itself: {'; '.join(still.reasons)}."] if still else []
    return [*refused, *paused, *stands, *dead, *status.notes]


def _status(
    counts: dict[str, int],
    running: ListReply,
    failed: ListReply,
    told: StoryReply,
    asked: AskReply | None,
    notes: list[str],
) -> StatusNow:
    now = time.time()
    runs = [answers.line(view, now) for view in running.tasks]
    fails = [answers.line(view, now) for view in answers.root_causes_first(failed.tasks)[:FAILED_SHOWN]]
    return StatusNow(
        story=answers.reply_to_question(asked) if asked else answers.story(told),
        cites=asked.citations if asked else [],
        blocked_on=told.blocked_on,
        next=told.next_actionable,
        counts={state: count for state, count in counts.items() if count},
        running=runs,
        failed=fails,
        notes=[*notes, *([answers.DATA_NOTE] if answers.has_words_of_workers([*runs, *fails]) else [])],
    )
