"""`changes`, `apply`, `discard`: what a task changed in its view of the workspace, and what is to become of that."""

from __future__ import annotations

import argparse

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import Output
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.wire.changes import ChangesReply, ChangeView, PathNote

_MARKS = {
    "added": Span("A", Style.GOOD),
    "modified": Span("M", Style.BUSY),
    "deleted": Span("D", Style.BAD),
    "renamed": Span("R", Style.BUSY),
    "mode": Span("m", Style.BUSY),
}
_DIFF_STYLES = {"+": Style.GOOD, "-": Style.BAD, "@": Style.BUSY, "d": Style.STRONG}


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "changes",
        "what a task has changed in its copy of the workspace",
        changes,
        details="Of tasks that were submitted with another workspace mode than dir.",
    )
    parser.add_argument("task", metavar="ID", help="a task, or the beginning of its id")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--list", action="store_true", help="only the list of changes")
    only.add_argument("--diff", action="store_true", help="only the diff, such as `git apply` takes it")
    parser = add(
        commands,
        "apply",
        "carry the changes of a task over into its workspace",
        apply,
        details="All of them, or none, if something of what they touch has changed since the task began.",
    )
    parser.add_argument("task", metavar="ID", help="a task, or the beginning of its id")
    parser.add_argument(
        "--protected", action="store_true", help="also to files that are run, or say what is run, outside of the sandbox"
    )
    parser = add(commands, "discard", "throw the changes of a task away", discard)
    parser.add_argument("task", metavar="ID", help="a task, or the beginning of its id")


def changes(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.changes(arguments.task, diff=not arguments.list))
    if session.output.json:
        session.output.value(reply)
    elif arguments.diff:
        session.output.worker_text(reply.diff)
    else:
        _print(session.output, reply)
    return Exit.OK


def _print(output: Output, reply: ChangesReply) -> None:
    output.lines(_row(change) for change in reply.changes)
    if reply.diff:
        output.line("")
        output.lines([Span(line, _DIFF_STYLES.get(line[:1], Style.PLAIN))] for line in reply.diff.removesuffix("\n").split("\n"))
    if len(reply.changes) < reply.count:
        output.note(f"the first {len(reply.changes)} of {reply.count} changes are listed")
    if reply.diff_cut:
        output.note(Span("the diff was longer than what is kept of it", Style.WARNING))
    _note_paths(output, "not carried over", reply.left_out)
    _note_paths(output, "stands against applying them", reply.conflicts)
    when = f" {render.moment(reply.settled_at)}" if reply.settled_at else ""
    output.note(f"{render.plural(reply.count, 'change')} to {reply.workspace} by attempt {reply.attempt}: {reply.state}{when}")


def _row(change: ChangeView) -> list[Cell]:
    name = f"{change.origin} -> {change.path}" if change.origin else change.path
    name += "/" if change.kind == "directory" else f" -> {change.target}" if change.kind == "link" else ""
    facts = [f"{change.mode:o}" if change.what == "mode" else "", "binary" if change.binary else ""]
    more = ", ".join(filter(None, facts))
    row: list[Cell] = [_MARKS.get(change.what, Span("?")), f" {name}", Span(f"  ({more})" if more else "", Style.FAINT)]
    return [*row, Span("  protected", Style.WARNING)] if change.protected else row


def _note_paths(output: Output, what: str, notes: list[PathNote]) -> None:
    for note in notes:
        output.note(Span(f"{what}: ", Style.WARNING), f"{note.path}: {note.why}")


def apply(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.apply(arguments.task, protected=arguments.protected))
    if session.output.json:
        session.output.value(reply)
    else:
        session.output.note(f"{render.plural(reply.count, 'change')} applied")
    return Exit.OK


def discard(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.discard(arguments.task))
    if session.output.json:
        session.output.value(reply)
    else:
        session.output.note(f"{render.plural(reply.count, 'change')} thrown away")
    return Exit.OK
