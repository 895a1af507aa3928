"""`graph`: when the tasks of a graph may start, must start, and are likely to."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add, count
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.story import WORDS_S, words
from supervisord_agents.core.model import END_STATES
from supervisord_agents.wire.graph import GraphReply, TaskTimes
from supervisord_agents.wire.story import StoryReply

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

DEFAULT_PAGE = 50
DOT_PAGE = 1_000
PATH_SHOWN = 20
"""Tasks of a critical path; of a longer one the middle is left out."""
_HEADER = ("TASK", "STATE", "PRI", "ESTIMATE", "EARLIEST", "LATEST", "SLACK", "START", "END", "REMARK")


def register(commands: Commands) -> None:
    showing = add(
        commands,
        "graph",
        "show when the tasks of a graph may start, must start, and are likely to",
        graph,
        details="Times count from now. EARLIEST and LATEST are starts as dependencies allow, START and END the forecast with the"
        " workers that there are, or what was.",
    )
    showing.add_argument("graph", metavar="ID", help="a graph, the beginning of its id, or one of its tasks")
    showing.add_argument("--limit", type=count, default=DEFAULT_PAGE, metavar="N", help=f"at most N (default {DEFAULT_PAGE})")
    showing.add_argument("--after", metavar="ID", default="", help="the page after this task, as the page before told")
    showing.add_argument("--dot", action="store_true", help="print the whole graph in the language of Graphviz instead")


def graph(session: Session, arguments: argparse.Namespace) -> Exit:
    output = session.output
    if arguments.dot:
        output.line("digraph {")
        for reply in _pages(session, arguments.graph):
            output.lines([line] for task in reply.tasks for line in _dot(reply.graph, task))
        output.line("}")
        return Exit.OK
    if output.json:
        output.value(session.run(partial(_page, arguments.graph, arguments.limit, arguments.after)))
        return Exit.OK
    reply, told = session.run(partial(_ask, arguments.graph, arguments.limit, arguments.after))
    output.table(render.table([_row(task) for task in reply.tasks], header=_HEADER))
    for line in _summary(reply):
        output.line(*line)
    output.line(Span("story          ", Style.FAINT), *words(told))
    for note in reply.notes:
        output.line(Span("note  ", Style.WARNING), note)
    if reply.next:
        output.note(f"{len(reply.tasks)} of {render.plural(reply.total, 'task')}; more: the same with --after {reply.next}")
    return Exit.OK


def _row(task: TaskTimes) -> list[Cell]:
    if task.state in END_STATES:
        lst, slack = "-", "-"
    else:
        lst, slack = when(task.lst_s), render.duration(task.slack_s)
    return [
        Span(task.id, Style.STRONG if task.critical else Style.PLAIN),
        render.state(task.state),
        str(task.priority),
        estimate(task.estimate_s, estimated=task.estimated),
        when(task.est_s),
        lst,
        slack,
        when(task.start_s),
        when(task.end_s),
        _remark(task),
    ]


def _remark(task: TaskTimes) -> Cell:
    if not task.needed:
        return "only if another fails"
    return Span("critical", Style.STRONG) if task.critical else ""


def estimate(seconds: float, *, estimated: bool) -> str:
    """Such as `12 s`; `?` where nobody knows."""
    return render.duration(seconds) if estimated else "?"


def when(seconds: float | None) -> str:
    """A time from now on, such as `+12 s`, `-4 min 5 s`, `now`, `never`."""
    if seconds is None:
        return "never"
    if abs(seconds) < 0.005:
        return "now"
    return ("-" if seconds < 0 else "+") + render.duration(abs(seconds))


def _summary(reply: GraphReply) -> Iterator[list[Cell]]:
    label = Span("critical path  ", Style.FAINT)
    yield [label, path(reply.critical_path, reply.critical_count)]
    if not reply.open:
        yield [Span("end            ", Style.FAINT), "all have ended"]
        return
    workers = ", ".join(f"{count} in {pool}" for pool, count in reply.workers.items()) or "none"
    bound = f"{render.duration(reply.critical_s)} by the critical path, {render.duration(reply.bound_s)} with these workers too"
    yield [Span("at least       ", Style.FAINT), bound]
    if reply.end_s is None:
        forecast = "never, as things are: agentctl why tells what holds it"
    else:
        forecast = f"in {render.duration(reply.end_s)}"
    yield [Span("forecast       ", Style.FAINT), f"{forecast} (workers: {workers}; {render.duration(reply.work_s)} of work)"]
    if reply.unknown:
        unknown = f"of {render.plural(reply.unknown, 'open task')} nobody knows how long it takes: counted as 1 s"
        yield [Span("estimates      ", Style.FAINT), unknown]


def path(names: list[str], length: int) -> str:
    """Such as `A -> B -> D`; `names` may be the beginning of a longer one."""
    if len(names) <= PATH_SHOWN and length == len(names):
        return " -> ".join(names) or "-"
    some = names[:PATH_SHOWN] if length > len(names) else [*names[: PATH_SHOWN // 2], "…", *names[-PATH_SHOWN // 2 :]]
    return " -> ".join(some) + f" ({length:,} tasks)"


def _pages(session: Session, name: str) -> Iterator[GraphReply]:
    after = ""
    while True:
        reply = session.run(partial(_page, name, DOT_PAGE, after, edges=True))
        yield reply
        after = reply.next
        if not after:
            return


def _page(name: str, limit: int, after: str, client: Client, *, edges: bool = False) -> Coroutine[Any, Any, GraphReply]:
    return client.graph(name, limit=limit, after=after, edges=edges)


async def _ask(name: str, limit: int, after: str, client: Client) -> tuple[GraphReply, StoryReply]:
    return await asyncio.gather(client.graph(name, limit=limit, after=after), client.story(name, wait_s=WORDS_S))


def _dot(graph: str, task: TaskTimes) -> Iterator[str]:
    """A node and the edges that lead to it. Ids are letters, digits, `_`, `-` and `.`: quoted they are safe."""
    time = estimate(task.estimate_s, estimated=task.estimated)
    bold = ", style=bold" if task.critical else ""
    yield f'  "{task.id}" [label="{task.id}\\n{task.state.value}, {time}"{bold}];'
    for name in task.dependencies:
        before = name if "." in name else f"{graph}.{name}"
        yield f'  "{before}" -> "{task.id}";'
