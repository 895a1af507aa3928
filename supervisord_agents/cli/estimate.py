"""`estimate`: what a submit would take, and whether it is worth it. Nothing is submitted."""

from __future__ import annotations

import argparse

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.submit import add_subject, add_task_options, graph_of
from supervisord_agents.wire.advice import TaskEstimate

_METHODS = {
    "given": "as the task itself says",
    "rule": "by tasks.estimates_s of its type",
    "average": "by the moving average",
    "regression": "by its size, its prompt, its dependencies and the moving average",
}


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "estimate",
        "say how long a task or a graph would take, and whether to delegate it",
        estimate,
        details="Takes what submit takes, and submits nothing.",
    )
    add_subject(parser, "estimate")
    add_task_options(parser)


def estimate(session: Session, arguments: argparse.Namespace) -> Exit:
    graph = graph_of(arguments)
    reply = session.run(lambda client: client.estimate(graph.tasks))
    output = session.output
    if output.json:
        output.value(reply)
    elif len(reply.tasks) == 1:
        task = reply.tasks[0]
        output.line(Span(task.advice, Style.STRONG), f": {task.reason}")
        output.lines(render.table(_facts(task)))
    else:
        output.table(render.table([_row(task) for task in reply.tasks], header=("TASK", "ADVICE", "TAKES", "WHY")))
        path, work = render.duration(reply.path_s), render.duration(reply.work_s)
        output.line(f"longest chain {path}, {work} of work")
    return Exit.OK


def _row(task: TaskEstimate) -> list[Cell]:
    return [task.id, Span(task.advice, Style.STRONG), _takes(task), task.reason]


def _takes(task: TaskEstimate) -> str:
    if task.method == "unknown":
        return "not known"
    if task.low_s == task.high_s:
        return render.duration(task.seconds)
    return f"{render.duration(task.seconds)} ({render.duration(task.low_s)} to {render.duration(task.high_s)})"


def _facts(task: TaskEstimate) -> list[list[Cell]]:
    rows = {
        "takes": _takes(task) + (", with a cold start" if task.cold else ""),
        "known": _known(task),
        "costs": f"{render.duration(task.overhead_s)} to hand over{_copying(task)}; its input is {render.size(task.input_bytes)}",
        "pool": f"{task.pool}: {render.plural(task.idle, 'worker')} free for it, {render.plural(task.before, 'task')} before it"
        + (f", a wait of about {render.duration(task.wait_s)}" if not task.idle else ""),
        "timeout": render.duration(task.timeout_s),
    }
    return [[Span(name, Style.FAINT), value] for name, value in rows.items()]


def _known(task: TaskEstimate) -> str:
    seen = f"{render.plural(task.observations, 'task')} of the kind seen"
    if task.method not in _METHODS:
        return seen
    off = f", off by {task.error:.0%} so far" if task.error >= 0 else ""
    return f"{_METHODS[task.method]}{off}; {seen}"


def _copying(task: TaskEstimate) -> str:
    if not task.copy_s:
        return ""
    return f", {render.duration(task.copy_s)} to copy the workspace ({render.size(task.workspace_bytes)})"
