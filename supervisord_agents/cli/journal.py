"""`journal verify`, `repair`, `dump` and `stats`: the journal as it lies on disk, whether or not a daemon runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import json_line
from supervisord_agents.cli.parser import Commands, Parser, add, add_group
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session

if TYPE_CHECKING:
    from supervisord_agents.journal.survey import Finding


def register(commands: Commands) -> None:
    group = add_group(commands, "journal", "look at the journal, or salvage a damaged one")
    _add(group, "verify", "look for damage", verify, "Changes nothing. Exit code 1 if the supervisor would refuse to start.")
    _add(group, "stats", "count what is in it", stats, "Changes nothing.")
    _add(group, "dump", "print every record", dump, "Changes nothing; records behind damage are printed too.")
    _add(group, "repair", "salvage every whole record of a damaged journal", repair, "A copy is made first. Stop the supervisor.")


def _add(group: Commands, name: str, summary: str, run: Any, details: str) -> Parser:
    parser = add(group, name, summary, run, details=details)
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="the journal (default: that of the configuration)")
    return parser


def _directory(session: Session, arguments: argparse.Namespace) -> Path:
    from supervisord_agents.config import state_dir

    given: Path | None = arguments.directory
    return given or state_dir(session.config) / "journal"


def verify(session: Session, arguments: argparse.Namespace) -> Exit:
    from supervisord_agents.journal import survey

    directory = _directory(session, arguments)
    findings = survey.verify(directory)
    fatal = any(finding.fatal for finding in findings)
    output = session.output
    if output.json:
        output.value({"directory": str(directory), "ok": not fatal, "findings": [_plain(finding) for finding in findings]})
        return Exit.FAILED if fatal else Exit.OK
    output.lines(_finding(finding) for finding in findings)
    if not findings:
        output.line(Span("ok", Style.GOOD), f"  {directory}")
    elif fatal:
        output.note("the supervisor will not start with this: agentctl journal repair")
    return Exit.FAILED if fatal else Exit.OK


def _finding(finding: Finding) -> list[Cell]:
    mark = Span("damaged   ", Style.BAD) if finding.fatal else Span("unfinished", Style.WARNING)
    return [mark, f"  {finding.path} at byte {finding.offset}: {finding.what}"]


def stats(session: Session, arguments: argparse.Namespace) -> Exit:
    from supervisord_agents.journal import survey

    found = survey.stats(_directory(session, arguments))
    output = session.output
    if output.json:
        output.value(_plain(found))
        return Exit.OK
    rows: list[list[Cell]] = [
        ["directory", str(_directory(session, arguments))],
        ["segments", f"{found.segments}, {render.size(found.bytes)} on disk"],
        ["records", f"{found.records:,} of {render.size(found.record_bytes)}, {found.first_sequence} to {found.last_sequence}"],
        ["snapshot", f"up to record {found.snapshot_sequence}, {render.size(found.snapshot_bytes)}"],
    ]
    output.lines(render.table([[Span(str(name), Style.FAINT), value] for name, value in rows]))
    return Exit.OK


def dump(session: Session, arguments: argparse.Namespace) -> Exit:
    from supervisord_agents.journal import survey

    output = session.output
    for entry in survey.dump(_directory(session, arguments)):
        record = _decoded(entry.payload)
        if output.json:
            output.value({**_plain(entry), "payload": record})
        else:
            output.line(
                Span(f"{entry.sequence:>10}  ", Style.FAINT), f"{entry.kind}  ", json_line(record) if entry.payload else ""
            )
    return Exit.OK


def _decoded(payload: bytes) -> Any:
    """The record as plain data; the bytes themselves if they are not msgpack."""
    try:
        return msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload


def repair(session: Session, arguments: argparse.Namespace) -> Exit:
    from supervisord_agents.journal import repair as journal

    report = journal.repair(_directory(session, arguments))
    output = session.output
    if output.json:
        output.value({**_plain(report), "findings": [_plain(finding) for finding in report.findings]})
        return Exit.OK
    output.lines(_finding(finding) for finding in report.findings)
    if not report.repaired:
        output.line(Span("ok", Style.GOOD), "  the supervisor starts with this journal; nothing was changed")
        return Exit.OK
    lost = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in report.lost) or "none"
    output.line(f"{render.plural(report.records_kept, 'record')} kept, {report.records_lost} lost ({lost})")
    output.line(f"the journal as it was: {report.kept_in}")
    return Exit.OK


def _plain(value: Any) -> dict[str, Any]:
    """A named tuple as an object, its paths as text."""
    return {name: str(item) if isinstance(item, Path) else item for name, item in value._asdict().items()}
