"""`doctor`: what this host can do, what it cannot, and what to do about it; works without a daemon."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import Output
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Span, Style, plural
from supervisord_agents.cli.session import Session

if TYPE_CHECKING:
    from supervisord_agents.cli.findings import Finding

_MARKS = {
    "ok": Span("ok     ", Style.GOOD),
    "missing": Span("MISSING", Style.BAD),
    "off": Span("off    ", Style.FAINT),
}
_NAME_WIDTH = 18


def register(commands: Commands) -> None:
    add(
        commands,
        "doctor",
        "check the host, the configuration, the agents and the supervisor",
        doctor,
        details="Works without a supervisor. What is `off` may be; what is MISSING makes the exit code 1.",
    )


def doctor(session: Session, arguments: argparse.Namespace) -> Exit:
    # Imported here: most of the supervisor comes with it.
    from supervisord_agents.cli.checkup import examine
    from supervisord_agents.cli.findings import Mark

    findings = examine(session)
    missing = sum(finding.mark is Mark.MISSING for finding in findings)
    if session.output.json:
        session.output.value({"ok": not missing, "findings": findings})
    else:
        _print(session.output, findings, missing)
    return Exit.FAILED if missing else Exit.OK


def _print(output: Output, findings: list[Finding], missing: int) -> None:
    area = told = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            output.line(Span(area, Style.STRONG))
        output.line("  ", _MARKS[finding.mark], f"  {finding.name:{_NAME_WIDTH}}  {finding.what}")
        if finding.remedy and finding.remedy != told:
            output.line(" " * (_NAME_WIDTH + 13), Span(f"-> {finding.remedy}", Style.WARNING))
            told = finding.remedy
    if missing:
        output.line(Span(f"{plural(missing, 'thing')} missing.", Style.BAD))
    else:
        output.line(Span("Everything that is needed is there.", Style.GOOD))
