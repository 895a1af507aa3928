"""`list`, `show`, `cancel` and `retry`: tasks as the supervisor knows them."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import Output, json_text
from supervisord_agents.cli.parser import Commands, add, count
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.story import WORDS_S, words
from supervisord_agents.core.graph import edge_of
from supervisord_agents.core.model import Failure, State, TaskSpec, Usage
from supervisord_agents.wire.messages import ShowReply, StepView, TaskView
from supervisord_agents.wire.story import StoryReply

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

DEFAULT_PAGE = 50
IDLE_S = 30.0
"""A running task that has not moved for so long is said to stand still."""


def register(commands: Commands) -> None:
    listing = add(commands, "list", "list tasks, newest first", list_tasks)
    states = [state.value for state in State]
    listing.add_argument("--state", action="append", choices=states, default=[], help="only tasks in this state; may be repeated")
    listing.add_argument("--graph", metavar="ID", default="", help="only tasks of this graph")
    listing.add_argument("--limit", type=count, default=DEFAULT_PAGE, metavar="N", help=f"at most N (default {DEFAULT_PAGE})")
    listing.add_argument("--after", metavar="ID", default="", help="the page after this task, as the page before told")

    showing = add(commands, "show", "show everything about a task", show)
    showing.add_argument("task", metavar="ID", help="a task, or the beginning of its id")

    cancelling = add(commands, "cancel", "cancel a task with all that depend on it, or a whole graph", cancel)
    cancelling.add_argument("task", metavar="ID", help="a task or a graph")
    cancelling.add_argument("--only", action="store_true", help="not the tasks that depend on it: their edges decide")
    cancelling.add_argument("--reason", metavar="TEXT", default="", help="why; kept in the history")

    retrying = add(
        commands,
        "retry",
        "run a failed, cancelled or dead task again",
        retry,
        details="What failed or was cancelled only because of it runs again too.",
    )
    retrying.add_argument("task", metavar="ID", help="a task")
    retrying.add_argument("--fresh", action="store_true", help="forget the steps that it has finished: do all of it anew")


def list_tasks(session: Session, arguments: argparse.Namespace) -> Exit:
    states = [State(name) for name in arguments.state]
    reply = session.run(
        lambda client: client.list(states=states, graph=arguments.graph, limit=arguments.limit, after=arguments.after)
    )
    output = session.output
    if output.json:
        output.value(reply)
        return Exit.OK
    if not reply.tasks:
        output.note("no tasks")
        return Exit.OK
    output.table(task_table(reply.tasks))
    if reply.next:
        output.note(f"{len(reply.tasks)} of {render.plural(reply.total, 'task')}; more: the same with --after {reply.next}")
    return Exit.OK


def task_table(tasks: list[TaskView]) -> list[list[Span]]:
    """One line a task."""
    now = time.time()
    rows: list[list[Cell]] = [
        [task.id, render.state(task.state), task.agent, str(task.attempt), _ran(task, now), remark(task, now)] for task in tasks
    ]
    return render.table(rows, header=("TASK", "STATE", "AGENT", "TRY", "TIME", "REMARK"))


def _ran(task: TaskView, now: float) -> str:
    if not task.started_at:
        return "-"
    return render.duration((task.ended_at or now) - task.started_at)


def remark(task: TaskView, now: float) -> Cell:
    """What is worth a few words about a task: why it failed, how far it is, what it waits for."""
    if task.state is State.RUNNING:
        return standing(task, now)
    if task.state is State.BLOCKED and task.waits_for:
        more = task.waits_for_count - len(task.waits_for)
        return "waits for " + ", ".join(task.waits_for) + (f" and {more} more" if more > 0 else "")
    if task.state is State.BACKING_OFF:
        return f"again in {render.duration(task.retry_at - now)}: {_why(task.failure)}"
    if task.state is State.SUCCEEDED or task.failure is None:
        return ""
    return Span(_why(task.failure), Style.BAD)


def progress(fraction: float, message: str) -> str:
    """Such as `40 % reading`."""
    percent = f"{fraction * 100:.0f} %" if fraction >= 0 else ""
    return " ".join(part for part in (percent, message) if part)


def standing(task: TaskView, now: float) -> str:
    """How far a running task is, and for how long it has not moved."""
    idle_s = now - task.progress_at if task.progress_at else 0.0
    still = f"no progress for {render.duration(idle_s)}" if idle_s >= IDLE_S else ""
    return ", ".join(part for part in (progress(task.progress, task.progress_message), still) if part)


def _why(failure: Failure | None) -> str:
    return f"{failure.code} {failure.message}" if failure else ""


def show(session: Session, arguments: argparse.Namespace) -> Exit:
    if session.output.json:
        session.output.value(session.run(lambda client: client.show(arguments.task)))
        return Exit.OK
    reply, told = session.run(partial(_show, arguments.task))
    show_for_people(session.output, reply, told)
    return Exit.OK


async def _show(name: str, client: Client) -> tuple[ShowReply, StoryReply]:
    reply = await client.show(name)
    return reply, await client.story(reply.task.graph, wait_s=WORDS_S)


def show_for_people(output: Output, reply: ShowReply, told: StoryReply | None = None) -> None:
    """Everything about a task, with the story of its graph if that has others too."""
    task = reply.task
    output.line(Span(task.id, Style.STRONG), "  ", render.state(task.state))
    output.lines(render.table(_facts(reply)))
    if task.failure is not None:
        output.line(Span("why".ljust(_WIDTH), Style.FAINT), Span(_why(task.failure), Style.BAD))
        if task.failure.hint:
            output.line(" " * _WIDTH, task.failure.hint)
    if told is not None and sum(told.counts.values()) > 1:
        output.line(Span("its graph".ljust(_WIDTH), Style.FAINT), *words(told))
    output.line(Span("input", Style.FAINT))
    for text in json_text(reply.spec.input).split("\n"):
        output.line("  ", text)
    if reply.steps:
        output.line(Span("steps", Style.FAINT))
        output.lines(render.table([_step(step) for step in reply.steps], indent="  "))
    output.line(Span("history", Style.FAINT))
    output.lines(render.table([_moment(entry) for entry in reply.history], indent="  "))


_WIDTH = 14


def _facts(reply: ShowReply) -> list[list[Cell]]:
    task, spec, now = reply.task, reply.spec, time.time()
    conditions = dict(edge_of(dependency) for dependency in spec.dependencies)
    facts = {
        "graph": task.graph,
        "agent": task.agent,
        "type": task.type,
        "priority": f"{task.priority} (0 is the highest)",
        "pool": task.pool,
        "submitted by": task.parent,
        "workspace": _workspace(spec),
        "attempt": f"{task.attempt} of {task.max_retries + 1} at most",
        "timeout": f"{render.duration(spec.timeout_s)} an attempt",
        "deadline": f"{render.duration(spec.deadline_s)} from submission" if spec.deadline_s else "",
        "submitted": render.moment(task.submitted_at),
        "started": f"{render.moment(task.started_at)}, ran {_ran(task, now)}" if task.started_at else "",
        "ended": render.moment(task.ended_at) if task.ended_at else "",
        "tries again": render.moment(task.retry_at) if task.state is State.BACKING_OFF else "",
        "worker": task.worker,
        "progress": standing(task, now),
        "usage": usage(task.usage),
    }
    rows: list[list[Cell]] = [[name.ljust(_WIDTH - 2), value] for name, value in facts.items() if value]
    for name, state in reply.dependencies.items():
        when = conditions.get(name) or conditions.get(name.removeprefix(f"{task.graph}."))
        rows.append(["depends on", f"{name} ({state.value}; runs {when.value if when else '?'})"])
    rows += [["needed by", name] for name in reply.dependents]
    rows += [["child", name] for name in reply.children]
    rows += [[name, value] for name, value in (("undoes", reply.undoes), ("undone by", reply.undone_by)) if value]
    if reply.budget is not None:
        rows.append(["budget", f"of {reply.budget.graph}: {reply.budget.in_words(now)}"])
    rows += [["result", reply.result_path], ["log", reply.log_path]]
    return [[Span(str(name), Style.FAINT), value] for name, value in rows]


def _workspace(spec: TaskSpec) -> str:
    if not spec.workspace:
        return "private"
    return spec.workspace if spec.workspace_mode is None else f"{spec.workspace} ({spec.workspace_mode})"


def _moment(entry: dict[str, Any]) -> list[Cell]:
    attempt = f"attempt {entry['attempt']}" if entry.get("attempt") else ""
    why = " ".join(str(entry[key]) for key in ("code", "message") if entry.get(key))
    return [render.moment(entry["at"]), render.state(State(entry["state"])), attempt, why]


def _step(step: StepView) -> list[Cell]:
    if not step.done_at:
        return [render.moment(step.begun_at), step.name, f"attempt {step.attempt}", "begun, may have happened"]
    took = render.duration(step.done_at - step.begun_at)
    return [render.moment(step.done_at), step.name, f"attempt {step.attempt}", f"done in {took}, {step.result_bytes} bytes kept"]


def usage(used: Usage) -> str:
    """Tokens and cost; empty if there were none."""
    if used == Usage():
        return ""
    return f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out, ${used.cost_usd:.4f}"


def cancel(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.cancel(arguments.task, subtree=not arguments.only, reason=arguments.reason))
    output = session.output
    count = render.plural(max(reply.count, len(reply.cancelled)), "task")
    output.named(reply, reply.cancelled, f"{count} cancelled" if reply.cancelled else "nothing to cancel: it had ended before")
    return Exit.OK


def retry(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.retry(arguments.task, fresh=arguments.fresh))
    session.output.named(reply, reply.tasks, f"{render.plural(max(reply.count, len(reply.tasks)), 'task')} will run again")
    return Exit.OK
