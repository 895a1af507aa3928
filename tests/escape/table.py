"""The table of docs/security.md: every attempt in every sandbox."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.escape.attempt import Judged, Verdict
from tests.escape.families import workers
from tests.escape.jails import OURS, PEER_JAILS, Jail, Nothing, works
from tests.escape.running import run
from tests.escape.suite import FAMILIES, OPEN

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- made by: make escape-table -->", "<!-- end of what is made -->"
JAILS: tuple[Jail, ...] = (*OURS, *PEER_JAILS, Nothing())
DAEMON = "our daemon"
"""Whose workers lie; others have none."""
NOT_JUDGED = "?"
SHOWN = {
    Verdict.BLOCKED: "blocked",
    Verdict.CONTAINED: "contained",
    Verdict.ESCAPED: "**escaped**",
    Verdict.NOT_APPLICABLE: "n.a.",
}

KNOWN = "(known to be open) "

Found = dict[str, dict[str, Judged | BaseException]]
"""By jail and attempt."""


def find(jails: Sequence[Jail], families: Sequence[str], say: Callable[[str], None]) -> Found:
    """Run everything; `say` is told what is being done."""
    found: Found = {}
    for jail in jails:
        found[jail.name] = results = {}
        why = works(jail)
        if why:
            say(f"{jail.name}: {why}")
        for family in FAMILIES:
            if family.name not in families:
                continue
            say(f"{jail.name}: {family.name}")
            attempts = [one for one in family.attempts if not (isinstance(jail, Nothing) and one.mounts)]
            results |= dict.fromkeys(
                (one.name for one in family.attempts), Judged(Verdict.NOT_APPLICABLE, why or "not without one")
            )
            results |= {} if why else run(jail, attempts)
    if "workers" in families:
        say("the daemon: workers")
        found[DAEMON] = {one.name: _tried(one) for one in workers.ATTEMPTS}
    return found


def _tried(attempt: workers.WorkerAttempt) -> Judged | BaseException:
    async def bounded(place: Path) -> Judged:
        async with asyncio.timeout(120):
            return await attempt.run(place)

    with tempfile.TemporaryDirectory(prefix="escape-", ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o755)
        try:
            return asyncio.run(bounded(Path(place)))
        except (AssertionError, OSError, TimeoutError) as error:
            return error


def rows(families: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """Family, name and what is tried."""
    for family in FAMILIES:
        if family.name in families:
            yield from ((family.name, one.name, one.tells) for one in family.attempts)


def markdown(found: Found, families: Sequence[str]) -> str:
    names = [name for name in found if name != DAEMON]
    lines = [f"| what is tried | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    before = ""
    for family, name, tells in rows(families):
        if family != before:
            lines.append(f"| **{family}** |{' |' * len(names)}")
            before = family
        shown = " | ".join(_cell(found[jail].get(name)) for jail in names)
        lines.append(f"| {tells} {KNOWN if name in OPEN else ''}| {shown} |")
    if DAEMON in found:
        lines += ["", f"| what a worker tries | {DAEMON} |", "|---|---|"]
        lines += [f"| {one.tells} | {_cell(found[DAEMON].get(one.name))} |" for one in workers.ATTEMPTS]
    return "\n".join([*_totals(found), "", *lines, "", *_reasons(found), ""])


def _cell(how: Judged | BaseException | None) -> str:
    return SHOWN[how.verdict] if isinstance(how, Judged) else NOT_JUDGED


def _totals(found: Found) -> list[str]:
    lines = ["| | " + " | ".join((*SHOWN.values(), "not judged")) + " |", "|---|" + "---:|" * (len(SHOWN) + 1)]
    for jail, results in found.items():
        counted = Counter(_cell(how) for how in results.values())
        lines.append(f"| {jail} | " + " | ".join(str(counted[text]) for text in (*SHOWN.values(), NOT_JUDGED)) + " |")
    return lines


def _reasons(found: Found) -> list[str]:
    """Why some were not applicable or could not be judged."""
    lines = ["Not applicable or not judged:", ""]
    for jail, results in found.items():
        reasons: dict[str, list[str]] = {}
        for name, how in results.items():
            if isinstance(how, BaseException):
                reasons.setdefault(_first_line(how), []).append(name)
            elif how.verdict is Verdict.NOT_APPLICABLE:
                reasons.setdefault(how.why, []).append(name)
        for why, names in reasons.items():
            which = "all" if len(names) > 40 else ", ".join(names) if len(names) <= 4 else f"{len(names)} attempts"
            lines.append(f"- {jail}: {why} ({which})")
    return lines


def _first_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", f"{error}".split(":")[0])[:100] or type(error).__name__


def put_into_document(table: str) -> None:
    text = DOCUMENT.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    assert tail, f"{DOCUMENT} lacks the two marks"
    DOCUMENT.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}")
