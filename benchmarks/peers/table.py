"""The Markdown table of a run, and its place in benchmarks/RESULTS.md."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from benchmarks.peers import catalog
from benchmarks.peers.figures import OURS, Cell, cell, rows

BEGIN = "<!-- peers: made by `make bench-peers`, do not edit -->"
END = "<!-- peers: end -->"
REASONS = Path(__file__).parent / "behind.toml"


def read_reasons(path: Path = REASONS) -> dict[str, str]:
    """Why we are behind: by work, or by `module.work` where one peer has a reason of its own."""
    told: dict[str, str] = {}
    for name, value in tomllib.loads(path.read_text()).items():
        told |= {f"{name}.{work}": text for work, text in value.items()} if isinstance(value, dict) else {name: value}
    return told


def publish(run: dict[str, Any], reasons: dict[str, str], path: Path) -> None:
    """Put the table between the markers of a document, or at its end."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if END in rest else "\n"
    path.write_text(f"{before.rstrip()}\n\n{BEGIN}\n{markdown(run, reasons)}\n{END}{after}")


def markdown(run: dict[str, Any], reasons: dict[str, str]) -> str:
    """The whole section."""
    works = [work for work in catalog.WORKS if any(work.name in cells for cells in run["cells"].values())]
    notes = _Notes()
    lines = [
        *_head(run),
        "",
        "| peer, setting | " + " | ".join(work.title for work in works) + " |",
        "|---" * (len(works) + 1) + "|",
    ]
    group = None
    for name, entry, setting in rows(run):
        if name != OURS and setting.durable != group:
            group = setting.durable
            title = "Durable settings" if group else "Fast settings: what is acknowledged may be lost"
            lines.append(f"| **{title}** |" + " |" * len(works))
        texts = [_text(run, name, work, notes) for work in works]
        lines.append(f"| {entry.title}: {setting.says} | " + " | ".join(texts) + " |")
    lines += ["", *notes.lines(), *_fewer(run, works), *_skipped(run), "", "### Where ours is behind", ""]
    lines += _behind(run, works, reasons)
    return "\n".join(lines)


def _head(run: dict[str, Any]) -> list[str]:
    machine = run["machine"]
    loads = ", ".join(f"{load:g}" for load in run["load"])
    versions = sorted({f"{name} {number}" for each in run["versions"].values() for name, number in each.items()})
    return [
        "## Peers",
        "",
        f"`make bench-peers`, {run['date']}, {machine['cores']} × {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, at commit {run['commit']}; "
        f"rounds: {run['rounds']}, {run['seconds']} s. "
        f"Load average meanwhile (start, after each round): {loads}"
        + ("".join(f"; taken later: {note}" for note in run.get("added", [])))
        + ("; **the machine was busy with other work**." if max(run["load"]) > 2 * machine["cores"] else "."),
        "",
        f"Versions: {', '.join(versions)}.",
        "",
        "Every cell: the figure, then in brackets how many times better ours is; under 1 ours is behind. Submits: median / 99th "
        "percentile of the time to the acknowledgement; of 64 clients the rate counts. All on one file system, two workers each, "
        "one client process; medians over the rounds. What makes a setting durable is said in the file of each peer in "
        "`benchmarks/peers/`. Ours runs `/bin/true` sandboxed: it has no unsandboxed way. After kill -9 the kernel lives on: "
        "what only a power cut loses is not seen here, and lost is what did not end although nothing else was run for 30 s.",
        "",
        "![the ratios as a plot](peers/results/peers.svg)",
    ]


def _text(run: dict[str, Any], name: str, work: catalog.Work, notes: _Notes) -> str:
    found = cell(run, name, work.name)
    if found.median is None:
        return f"–{notes.mark(found.reason)}"
    if work.name == "crash":
        return f"{found.median['lost']:g} lost, {found.median['twice']:g} twice of {found.median['acknowledged']:,.0f}"
    ratio = "" if name == OURS or found.ratio is None else f" ({number(found.ratio)}×)"
    return _figure(work, found) + ratio


def _figure(work: catalog.Work, found: Cell) -> str:
    assert found.median is not None
    assert found.figure is not None
    if "p50_ms" in found.median:
        times = f"{number(found.median['p50_ms'])} / {number(found.median['p99_ms'])} ms"
        return f"{number(found.figure)}/s, {times}" if found.median["clients"] > 1 else times
    if work.unit == "bytes":
        return f"{found.figure:,.0f} B"
    return f"{number(found.figure)}/s"


def number(value: float) -> str:
    """Two or three figures that say something."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"


class _Notes:
    """Reasons, each with a number; the same reason has the same number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        return f" [{self._numbers.setdefault(reason, len(self._numbers) + 1)}]"

    def lines(self) -> list[str]:
        if not self._numbers:
            return []
        return ["No figure: " + "; ".join(f"[{mark}] {reason}" for reason, mark in self._numbers.items()) + ".", ""]


def _fewer(run: dict[str, Any], works: list[catalog.Work]) -> list[str]:
    """Where fewer tasks were run than asked for."""
    said = []
    for name, entry, setting in rows(run):
        cells = [(work, cell(run, name, work.name)) for work in works]
        fewer = [f"{work.name} {found.count:,}" for work, found in cells if found.count < found.wanted]
        if fewer:
            said.append(f"{entry.title} ({setting.name}): {', '.join(fewer)}")
    if not said:
        return []
    return ["Fewer tasks than in the column's title, so that a run ends (rates stay comparable): " + "; ".join(said) + ".", ""]


def _skipped(run: dict[str, Any]) -> list[str]:
    if not run["skipped"]:
        return []
    return ["**Skipped**: " + "; ".join(f"{name}: {reason}" for name, reason in sorted(run["skipped"].items())) + ".", ""]


def _behind(run: dict[str, Any], works: list[catalog.Work], reasons: dict[str, str]) -> list[str]:
    """One line for each row with a ratio under 1, each work with its reason; the reasons are said once, below."""
    lines, used = [], set()
    for name, entry, setting in rows(run):
        behind = []
        for work in works:
            found = cell(run, name, work.name)
            if found.ratio is not None and found.ratio < 1 and name != OURS:
                key = f"{entry.module}.{work.name}" if f"{entry.module}.{work.name}" in reasons else work.name
                used.add(key)
                behind.append(f"{work.name} {number(found.ratio)}×")
        if behind:
            durable = "durable" if setting.durable else "fast"
            lines.append(f"- {entry.title}, {setting.name} ({durable}): {', '.join(behind)}.")
    if not lines:
        return ["Nowhere."]
    lines += ["", "Why:", ""]
    lines += [f"- {_named(key)}: {reasons.get(key, 'not looked into yet.')}" for key in sorted(used, key=_by_work)]
    return lines


def _by_work(key: str) -> tuple[str, str]:
    module, _, work = key.rpartition(".")
    return work, module


def _named(key: str) -> str:
    """The name of a reason for people."""
    module, _, work = key.rpartition(".")
    return f"{work}, {catalog.peer(module).title}" if module else work
