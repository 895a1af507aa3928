"""The plot of a run as SVG: a row for each peer and setting, a column for each work, a dot for the ratio to ours."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.peers import catalog
from benchmarks.peers.figures import OURS, cell, rows

LABEL, COLUMN, GAP, ROW = 290, 104, 28, 21
TOP, BOTTOM, RIGHT = 96, 54, 20
DECADES = 2
"""To each side of 1; what is beyond sits at the edge as an arrow."""
AHEAD, BEHIND, GRID, TEXT, FAINT = "#2166ac", "#d6604d", "#e3e3e3", "#1c1c1c", "#777777"
STYLE = "font-family:Helvetica,Arial,sans-serif"


def write(run: dict[str, Any], path: Path) -> None:
    path.write_text(svg(run))


def svg(run: dict[str, Any]) -> str:
    """The whole picture."""
    works = [work for work in catalog.WORKS if work.name != "crash" and cell(run, OURS, work.name).figure]
    peers = [row for row in rows(run) if row[0] != OURS]
    width = LABEL + len(works) * (COLUMN + GAP) + RIGHT
    lines = _with_gap(peers)
    height = TOP + len(lines) * ROW + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" style="{STYLE}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _label(16, 26, "agent-supervisor against its peers: how many times better ours is", size=16, weight="bold"),
        _label(
            16, 46, f"{run['date']}, {run['machine']['cores']} × {run['machine']['cpu']}; right of 1: ours is ahead", fill=FAINT
        ),
    ]
    for index, work in enumerate(works):
        parts += _axis(LABEL + index * (COLUMN + GAP), height, work)
    for index, line in enumerate(lines):
        y = TOP + index * ROW + ROW / 2
        if isinstance(line, str):
            parts.append(_label(16, y + 4, line, weight="bold"))
            continue
        name, entry, setting = line
        parts.append(_label(LABEL - 16, y + 4, f"{entry.title}: {setting.name}", anchor="end"))
        for column, work in enumerate(works):
            parts += _dot(LABEL + column * (COLUMN + GAP), y, cell(run, name, work.name).ratio, setting.durable)
    parts.append(_legend(height))
    return "\n".join([*parts, "</svg>", ""])


Row = tuple[str, catalog.PeerEntry, catalog.Setting]


def _with_gap(peers: list[Row]) -> list[Row | str]:
    """The rows with a heading before the durable and before the fast ones."""
    durable: list[Row | str] = [row for row in peers if row[2].durable]
    fast: list[Row | str] = [row for row in peers if not row[2].durable]
    return [*(["Durable settings", *durable] if durable else []), *(["Fast settings", *fast] if fast else [])]


def _axis(left: float, height: float, work: catalog.Work) -> list[str]:
    bottom = height - BOTTOM
    title, _, rest = work.title.partition(", ")
    parts = [_label(left + COLUMN / 2, TOP - 26, title, anchor="middle", size=11, weight="bold")]
    parts.append(_label(left + COLUMN / 2, TOP - 12, rest, anchor="middle", size=11))
    for decade in range(-DECADES, DECADES + 1):
        x = left + _place(10.0**decade)
        colour, thick = (TEXT, 1.2) if decade == 0 else (GRID, 1)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}" stroke-width="{thick}"/>')
        parts.append(_label(x, bottom + 14, f"{10.0**decade:g}", anchor="middle", size=9, fill=FAINT))
    return parts


def _place(ratio: float) -> float:
    """Where a ratio lies on an axis, from its left end."""
    position = max(-DECADES, min(DECADES, math.log10(ratio)))
    return (position + DECADES) / (2 * DECADES) * COLUMN


def _dot(left: float, y: float, ratio: float | None, durable: bool) -> list[str]:
    if ratio is None:
        return [f'<rect x="{left + COLUMN / 2 - 4}" y="{y - 4}" width="8" height="8" fill="white"/>', _none(left, y)]
    colour = AHEAD if ratio >= 1 else BEHIND
    x, middle = left + _place(ratio), left + COLUMN / 2
    stem = f'<line x1="{middle}" y1="{y}" x2="{x:.1f}" y2="{y}" stroke="{colour}" stroke-width="2" stroke-opacity="0.45"/>'
    if abs(math.log10(ratio)) > DECADES:
        way = 1 if ratio > 1 else -1
        points = f"{x + 5 * way:.1f},{y} {x - 3 * way:.1f},{y - 5} {x - 3 * way:.1f},{y + 5}"
        return [stem, f'<polygon points="{points}" fill="{colour}"><title>{ratio:.3g}</title></polygon>']
    fill = colour if durable else "white"
    shape = f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="2">'
    return [stem, f"{shape}<title>{ratio:.3g}</title></circle>"]


def _none(left: float, y: float) -> str:
    return _label(left + COLUMN / 2, y + 4, "–", anchor="middle", fill=FAINT)


def _legend(height: float) -> str:
    text = (
        "Ratio to ours, logarithmic. Blue: ours is ahead; red: behind. Filled: the peer's durable setting; "
        "hollow: a fast one (ours is always durable). Arrows: beyond the axis. –: no figure."
    )
    return _label(16, height - 14, text, size=11, fill=FAINT)


def _label(x: float, y: float, text: str, anchor: str = "start", size: int = 12, weight: str = "normal", fill: str = TEXT) -> str:
    look = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
