"""`logs`: what a task wrote."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.follow import Followed, LogPrinter, follow
from supervisord_agents.cli.parser import Commands, add, count
from supervisord_agents.cli.session import Session

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "logs",
        "print what a task wrote",
        logs,
        details="On a terminal control characters are shown as escapes; elsewhere the bytes come as they are.",
    )
    parser.add_argument("task", metavar="ID", help="a task, or the beginning of its id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the task ends")
    parser.add_argument("--offset", type=count, default=0, metavar="BYTES", help="begin here")
    parser.add_argument("--raw", action="store_true", help="bytes as they are, also on a terminal")


def logs(session: Session, arguments: argparse.Namespace) -> Exit:
    if not arguments.follow:
        session.run(lambda client: _print_all(session, client, arguments))
        return Exit.OK
    task = session.run(lambda client: client.show(arguments.task)).task.id
    follow(session, Followed(target=task, tasks=[task], raw=arguments.raw, offsets={task: arguments.offset}))
    return Exit.OK


async def _print_all(session: Session, client: Client, arguments: argparse.Namespace) -> None:
    """Everything that is there now."""
    printer = LogPrinter(session.output, raw=arguments.raw)
    offset = arguments.offset
    while True:
        reply = await client.logs(arguments.task, offset=offset)
        printer.print(arguments.task, reply)
        if not reply.data or reply.ended:
            return
        offset = reply.offset
