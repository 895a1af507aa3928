"""`status`: the daemon on one screen."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from supervisord_agents.cli import render
from supervisord_agents.cli.control import scope_in_words
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.story import WORDS_S, words
from supervisord_agents.cli.tasks import standing, usage
from supervisord_agents.core.model import State
from supervisord_agents.wire.messages import ListReply, PoolView, Recovery, StandstillView, StatusReply, TaskView
from supervisord_agents.wire.story import StoryReply
from supervisord_agents.wire.tracker import ModelView, TrackerView

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

RUNNING_SHOWN = 20


def register(commands: Commands) -> None:
    add(commands, "status", "show how the supervisor and its tasks are", status)


def status(session: Session, arguments: argparse.Namespace) -> Exit:
    output = session.output
    if output.json:
        output.value(session.run(lambda client: client.status()))
        return Exit.OK
    reply, running, told = session.run(_ask)
    now = time.time()
    output.lines(render.table(_facts(reply, now)))
    if told.open:
        output.line(Span("story  ", Style.FAINT), *words(told))
    if running.tasks:
        output.line()
        output.table(_running(running.tasks, now))
        if running.total > len(running.tasks):
            output.note(f"{running.total - len(running.tasks)} more: agentctl list --state running")
    if reply.letters:
        waiting = f"{render.plural(reply.letters, 'dead letter')}: agentctl dlq list"
        output.line(Span("decide  ", Style.WARNING), waiting)
    for one in reply.paused:
        output.line(Span("paused  ", Style.WARNING), scope_in_words(one))
    if reply.standstill is not None:
        output.line(Span("stands still  ", Style.BAD), standstill(reply.standstill))
    for trouble in troubles(reply.tracker) if reply.tracker else ():
        output.line(Span("tracker  ", Style.WARNING), trouble)
    for note in reply.notes:
        output.line(Span("note  ", Style.WARNING), note)
    return Exit.OK


async def _ask(client: Client) -> tuple[StatusReply, ListReply, StoryReply]:
    running = client.list(states=[State.RUNNING], limit=RUNNING_SHOWN)
    return await asyncio.gather(client.status(), running, client.story(wait_s=WORDS_S))


def _facts(reply: StatusReply, now: float) -> list[list[Cell]]:
    accepting: Cell = "accepted" if reply.accepting else Span("REFUSED, see the notes", Style.BAD)
    up = f"{reply.version}, up {render.duration(now - reply.started_at)} since {render.moment(reply.started_at)}, pid {reply.pid}"
    rows: dict[str, Cell] = {
        "supervisor": up,
        "new tasks": accepting,
        "last start": recovery(reply.recovery),
        "tasks": _counts(reply.counts) + (f"; {reply.archived:,} archived" if reply.archived else ""),
        "pools": " · ".join(_pool(pool) for pool in reply.pools),
        "sandbox": sandbox(reply.enforcement),
        "journal": f"{render.size(reply.journal_bytes)}, last record {reply.journal_sequence}, in {reply.state_dir}",
        "disk": f"{render.size(reply.disk_free_bytes)} free",
        "itself": f"{render.size(reply.rss_bytes)} of memory, {render.duration(reply.cpu_seconds)} of CPU",
        "loop": _loop(reply),
        "models": usage(reply.usage) or "not used",
    }
    if reply.tracker is not None:
        rows["tracker"] = tracker(reply.tracker, now)
    return [[Span(name, Style.FAINT), value] for name, value in rows.items()]


def recovery(found: Recovery) -> str:
    """What the last start found, in words."""
    if not found.records and not found.tasks:
        return "on an empty journal"
    after = "after an orderly stop" if found.clean else "after a crash"
    parts = [f"{render.plural(found.tasks, 'task')} from {render.plural(found.records, 'record')}"]
    if found.resumed:
        parts.append(f"{found.resumed} that went on meanwhile")
    if found.requeued:
        parts.append(f"{found.requeued} that ran queued again")
    if found.adopted:
        parts.append(f"{found.adopted} unseen ends kept")
    if found.torn_bytes:
        parts.append(f"{render.size(found.torn_bytes)} of a torn, never acknowledged tail cut")
    return f"{after}: {', '.join(parts)}, in {render.duration(found.seconds)}"


def sandbox(enforcement: dict[str, str]) -> Cell:
    """One line about the layers; `agentctl doctor` tells more."""
    on = sum(how == "on" for how in enforcement.values())
    missing = [name for name, how in enforcement.items() if how not in ("on", "")]
    if not missing:
        return Span(f"all {on} layers on", Style.GOOD)
    return Span(f"{on} layers on, off: {', '.join(missing)} (see: agentctl doctor)", Style.WARNING)


def standstill(found: StandstillView) -> str:
    """Why nothing goes on, in one line."""
    since = f"since {render.moment(found.since)} nothing runs, with {render.plural(found.tasks, 'open task')}"
    return f"{since}: {'; '.join(found.reasons)}"


def tracker(found: TrackerView, now: float) -> Cell:
    """How the models do that tell the story."""
    told = f"{', '.join(_model(model, now) for model in found.models)}: {render.plural(found.answers, 'answer')}"
    told += f", {found.refused:,} refused" if found.refused else ""
    told += f", {found.late:,} too late" if found.late else ""
    told += f"; {usage(found.usage)}" if usage(found.usage) else ""
    told += f"; ${found.spent_usd:.2f} of ${found.limit_usd:.2f} in 24 h" if found.spent_usd else ""
    return Span(f"{told}; {found.failed:,} times none answered (the log says why)", Style.WARNING) if found.failed else told


def _model(model: ModelView, now: float) -> str:
    about = f" ({model.about})" if model.about else ""
    since = f" for {render.duration(max(0.0, now - model.since))}" if model.since and model.state == "loading" else ""
    return f"{model.name}{about} {_STATES.get(model.state, model.state)}{since}"


def troubles(found: TrackerView) -> Iterator[str]:
    """Why models are not asked, and until when, a line for each."""
    for model in found.models:
        until = f"until {render.moment(model.until)}" if model.until else "for good"
        if model.state == "left_alone":
            yield f"{model.name} is left alone {until}, for it failed: {model.why.rstrip('.')} (see: agentctl breakers)"
        elif model.state == "over_limit":
            yield f"{model.name} is not asked {until}: {model.why} (tracker.cost_usd_per_day)"
        elif model.why:
            yield f"{model.name} is started again; it failed: {model.why}"
    if 2 * found.late > found.answers - found.refused:
        yield "most words come too late to be shown: raise tracker.stale_s, or lower tracker.prompt_tokens"


_STATES = {"left_alone": "left alone", "over_limit": "over its limit"}


def _loop(reply: StatusReply) -> Cell:
    longest = f"longest pause {reply.longest_pause_s * 1000:.0f} ms"
    if not reply.stalls:
        return longest
    return Span(f"{render.plural(reply.stalls, 'stall')}, {longest} (the log names what held it up)", Style.WARNING)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[state]:,} {state}" for state in State if counts.get(state)) or "none"


def _pool(pool: PoolView) -> str:
    waiting = f", {pool.waiting} waiting" if pool.waiting else ""
    idle = f", {pool.idle} idle" if pool.idle else ""
    size = f"{pool.size} of {pool.max_workers}" if 0 < pool.size < pool.max_workers else str(pool.max_workers)
    return f"{pool.name} {pool.busy}/{size} busy{idle}{waiting}"


def _running(tasks: list[TaskView], now: float) -> list[list[Span]]:
    rows: list[list[Cell]] = [
        [
            Span(task.id, Style.BUSY),
            task.agent,
            str(task.attempt),
            render.duration(now - task.started_at),
            task.worker or "-",
            standing(task, now),
        ]
        for task in tasks
    ]
    return render.table(rows, header=("RUNNING", "AGENT", "TRY", "FOR", "WORKER", "PROGRESS"))
