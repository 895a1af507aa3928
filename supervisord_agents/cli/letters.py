"""`dlq list`, `show`, `requeue` and `drop`: the tasks that wait for a person's decision."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, Parser, add, add_group, count
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.tasks import DEFAULT_PAGE, show_for_people
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.letters import Letter
from supervisord_agents.wire.messages import ShowReply

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client


def register(commands: Commands) -> None:
    group = add_group(commands, "dlq", "dead letters: tasks that wait for a person's decision")
    listing = add(group, "list", "list dead letters, the last that died first", list_letters)
    listing.add_argument("--limit", type=count, default=DEFAULT_PAGE, metavar="N", help=f"at most N (default {DEFAULT_PAGE})")
    listing.add_argument("--after", metavar="ID", default="", help="the page after this one, as the page before told")

    showing = add(group, "show", "show everything about a dead letter", show)
    showing.add_argument("task", metavar="ID", help="a task, or the beginning of its id")

    requeueing = add(group, "requeue", "run dead letters again, as `retry` does", requeue)
    _add_which(requeueing)

    dropping = add(
        group, "drop", "take dead letters off the list for good", drop, details="The tasks stay dead, and may be archived."
    )
    _add_which(dropping)
    dropping.add_argument("--reason", metavar="TEXT", default="", help="why; kept in the history")


def _add_which(parser: Parser) -> None:
    parser.add_argument("tasks", metavar="ID", nargs="*", help="tasks, or graphs: their dead letters")
    parser.add_argument("--all", action="store_true", help="all that there are")


def list_letters(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.letters(limit=arguments.limit, after=arguments.after))
    output = session.output
    if output.json:
        output.value(reply)
        return Exit.OK
    if not reply.letters:
        output.note("no dead letters")
        return Exit.OK
    rows: list[list[Cell]] = [
        [letter.task, render.moment(letter.at), str(letter.attempts), letter.agent, Span(_why(letter), Style.BAD)]
        for letter in reply.letters
    ]
    output.table(render.table(rows, header=("TASK", "DIED", "TRIES", "AGENT", "WHY")))
    if reply.next:
        output.note(f"{len(reply.letters)} of {render.plural(reply.total, 'letter')}; more: the same with --after {reply.next}")
    return Exit.OK


def _why(letter: Letter) -> str:
    return f"{letter.failure.code} {letter.failure.message}"


def show(session: Session, arguments: argparse.Namespace) -> Exit:
    letter, shown, undone = session.run(lambda client: _ask(client, arguments.task))
    output = session.output
    if output.json:
        output.value({"letter": letter, "task": shown, "undone": undone})
        return Exit.OK
    show_for_people(output, shown)
    if undone is not None:
        output.line(Span("undoes", Style.FAINT), f"  {undone.task.id}: what it did still stands")
        output.lines(render.table([["  result", undone.result_path], ["  log", undone.log_path]]))
    output.note(f"run it again: agentctl dlq requeue {letter.task}; or decide that it stays so: agentctl dlq drop {letter.task}")
    return Exit.OK


async def _ask(client: Client, name: str) -> tuple[Letter, ShowReply, ShowReply | None]:
    reply = await client.letters(task=name)
    if len(reply.letters) > 1:
        raise InvalidInput(
            f"{name} has {reply.total} dead letters.",
            field="ID",
            hint=f"Such as {reply.letters[0].task}; `agentctl dlq list` has all.",
        )
    (letter,) = reply.letters
    if not letter.undoes:
        return letter, await client.show(letter.task), None
    shown, undone = await asyncio.gather(client.show(letter.task), client.show(letter.undoes))
    return letter, shown, undone


def requeue(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.requeue(arguments.tasks, everything=arguments.all))
    output = session.output
    output.named(reply, reply.tasks, f"{render.plural(reply.count, 'task')} will run again")
    for note in reply.refused:
        output.note(f"{note.task} stays: {note.why}")
    return Exit.FAILED if reply.refused else Exit.OK


def drop(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.drop(arguments.tasks, everything=arguments.all, reason=arguments.reason))
    session.output.named(reply, reply.tasks, f"{render.plural(reply.count, 'letter')} dropped")
    return Exit.OK
