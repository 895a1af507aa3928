"""`story` and `ask`: how things are, in words."""

from __future__ import annotations

import argparse
import time

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add, seconds
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.wire.story import StoryReply, StoryTask

WORDS_S = 0.3
"""So long `status`, `graph` and `show` wait for a model's words."""
RULES = "rules"
_WAITS_SHOWN = 3


def register(commands: Commands) -> None:
    telling = add(
        commands,
        "story",
        "tell how a graph is, or all that is open",
        story,
        details="What has ended, what runs, what is blocked on what, what is next, and when all will be done.",
    )
    telling.add_argument(
        "graph", metavar="ID", nargs="?", default="", help="a graph, or one of its tasks; without it: all that is open"
    )
    telling.add_argument(
        "--wait", type=seconds, metavar="TIME", default=WORDS_S, help="wait so long for a model's words (default 300ms)"
    )

    asking = add(
        commands,
        "ask",
        'answer a question, such as "what is blocking the release?"',
        ask,
        details="Answers come from the tasks as they are, and name those that they rest on.",
    )
    asking.add_argument("question", metavar="QUESTION", nargs="+", help="in words; quotes are not needed")
    asking.add_argument("--graph", metavar="ID", default="", help="about this graph only")


def story(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.story(arguments.graph, wait_s=arguments.wait))
    output = session.output
    if output.json:
        output.value(reply)
        return Exit.OK
    output.line(*words(reply))
    output.lines(render.table(_facts(reply)))
    if reply.tasks:
        output.line()
        output.table(render.table([_row(task) for task in reply.tasks], header=("TASK", "STATE", "WAITS FOR")))
    return Exit.OK


def words(reply: StoryReply) -> list[Cell]:
    """The summary, and whose it is if it is a model's."""
    if reply.by == RULES:
        return [reply.summary]
    behind = f", {render.plural(reply.behind, 'change')} ago" if reply.behind else ""
    age = render.duration(time.time() - reply.told_at)
    return [reply.summary, Span(f"  (in the words of {reply.by}, {age} old{behind})", Style.FAINT)]


def _facts(reply: StoryReply) -> list[list[Cell]]:
    facts = {
        "blocked on": ", ".join(reply.blocked_on) or "nothing",
        "next": ", ".join(reply.next_actionable) or "nothing",
        "end": (reply.eta.text if reply.eta else "not known") if reply.open else "all have ended",
    }
    return [[Span(name, Style.FAINT), value] for name, value in facts.items()]


def _row(task: StoryTask) -> list[Cell]:
    more = f" and {len(task.waits_for) - _WAITS_SHOWN} more" if len(task.waits_for) > _WAITS_SHOWN else ""
    return [task.id, render.state(task.status), ", ".join(task.waits_for[:_WAITS_SHOWN]) + more]


def ask(session: Session, arguments: argparse.Namespace) -> Exit:
    question = " ".join(arguments.question)
    reply = session.run(lambda client: client.ask(question, arguments.graph))
    output = session.output
    if output.json:
        output.value(reply)
        return Exit.OK
    output.line(reply.answer)
    if reply.citations:
        output.line(Span(f"from: {', '.join(reply.citations)}", Style.FAINT))
    if not reply.understood:
        output.note(
            "the question was not understood: ask what is blocked, failed, running or next, when it ends, or how a task is"
        )
    return Exit.OK
