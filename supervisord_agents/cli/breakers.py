"""`breakers`: which agents, providers and models of the tracker are left alone because they fail, and `breakers reset`."""

from __future__ import annotations

import argparse
import time
from typing import get_args

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.breakers import BreakerView, Kind

STYLES = {"closed": Style.PLAIN, "open": Style.BAD, "half_open": Style.WARNING}


def register(commands: Commands) -> None:
    command = add(
        commands,
        "breakers",
        "list agents, providers and models of the tracker that fail again and again, or reset one",
        breakers,
        details="What is open is not used; after a while one task, or one call, tries it again.",
    )
    command.add_argument("do", choices=("reset",), nargs="?", help="say that it works again, rather than list")
    command.add_argument("kind", choices=get_args(Kind), nargs="?", help="of what is reset")
    command.add_argument("name", metavar="NAME", nargs="?", default="", help="of what is reset")


def breakers(session: Session, arguments: argparse.Namespace) -> Exit:
    if arguments.do and not arguments.name:
        raise InvalidInput("what is to be reset?", hint="Such as: agentctl breakers reset agent qwen.")
    if arguments.do:
        left = session.run(lambda client: client.reset_breaker(arguments.kind, arguments.name)).breakers
    else:
        left = session.run(lambda client: client.breakers()).breakers
    output = session.output
    if output.json:
        output.value(left)
    elif left:
        output.table(_rows(left, time.time()))
    else:
        output.note("no agent, no provider and no model of the tracker has failed lately")
    return Exit.OK


def _rows(views: list[BreakerView], now: float) -> list[list[Span]]:
    rows: list[list[Cell]] = [
        [
            f"{view.kind} {view.name}",
            Span(view.state, STYLES[view.state]),
            f"{view.failures} of {view.limit}" if view.limit else f"{view.failures}, no limit",
            f"{render.duration(now - view.failed_at)} ago",
            f"in {render.duration(view.tried_at - now)}" if view.tried_at > now else "-",
            view.last,
        ]
        for view in views
    ]
    return render.table(rows, header=("OF", "BREAKER", "IN A ROW", "LAST", "TRIED", "FAILURE"))
