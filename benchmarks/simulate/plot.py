"""The makespans as SVG: a row for each order of starts, a column for each family of graphs, a dot for each graph."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import median

from benchmarks.simulate.makespan import ORDERS, OURS, Made

LABEL, COLUMN, GAP, ROW = 224, 168, 30, 44
TOP, BOTTOM, RIGHT = 104, 62, 24
MOST = 1.6
"""The end of each axis."""
FIRST, OTHER, GRID, TEXT, FAINT = "#2166ac", "#8c8c8c", "#e3e3e3", "#1c1c1c", "#777777"
STYLE = "font-family:Helvetica,Arial,sans-serif"


def write(made: Sequence[Made], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(svg(made), encoding="utf-8")


def svg(made: Sequence[Made]) -> str:
    """The whole picture."""
    families = list(dict.fromkeys(one.graph.family for one in made))
    width = LABEL + len(families) * (COLUMN + GAP) - GAP + RIGHT
    height = TOP + len(ORDERS) * ROW + BOTTOM
    graphs = len({one.graph.name for one in made})
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" style="{STYLE}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _label(16, 26, f"How long {graphs} graphs take, by the order in which ready tasks are started", size=16, weight="bold"),
        _label(
            16,
            46,
            "1: the bound that no order can beat, the longer of the critical path and the work shared out evenly",
            fill=FAINT,
        ),
    ]
    for column, family in enumerate(families):
        left = LABEL + column * (COLUMN + GAP)
        count = len({one.graph.name for one in made if one.graph.family == family})
        parts += _axis(left, height - BOTTOM, f"{family}, {count}")
        for row, order in enumerate(ORDERS):
            ratios = [one.ratio for one in made if one.graph.family == family and one.order == order]
            parts += _dots(left, TOP + row * ROW, ratios, FIRST if order == OURS else OTHER)
    for row, order in enumerate(ORDERS):
        weight = "bold" if order == OURS else "normal"
        parts.append(_label(LABEL - 18, TOP + (row + 0.5) * ROW + 4, order, anchor="end", weight=weight))
    foot = "dot: one graph · bar and number: the median · simulated time, the real scheduler, no overheads"
    parts.append(_label(16, height - 16, foot, fill=FAINT, size=11))
    return "\n".join([*parts, "</svg>", ""])


def _axis(left: float, bottom: float, title: str) -> list[str]:
    parts = [_label(left + COLUMN / 2, TOP - 22, title, anchor="middle", weight="bold")]
    for step in range(4):
        ratio = 1.0 + step * (MOST - 1.0) / 3
        x = left + _place(ratio)
        colour, thick = (TEXT, 1.2) if step == 0 else (GRID, 1)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}" stroke-width="{thick}"/>')
        parts.append(_label(x, bottom + 14, f"{ratio:.1f}", anchor="middle", size=10, fill=FAINT))
    return parts


def _place(ratio: float) -> float:
    """Where a ratio lies on an axis, from its left end."""
    return min((ratio - 1.0) / (MOST - 1.0), 1.0) * COLUMN


def _dots(left: float, top: float, ratios: Sequence[float], colour: str) -> list[str]:
    if not ratios:
        return [_label(left + COLUMN / 2, top + ROW / 2 + 4, "no types to learn from", anchor="middle", size=10, fill=FAINT)]
    parts = []
    for place, ratio in enumerate(ratios):
        y = top + 16 + (place * 7 % 11) * 2.2  # spread, so that equal ones can be told apart
        parts.append(f'<circle cx="{left + _place(ratio):.1f}" cy="{y:.1f}" r="2.6" fill="{colour}" fill-opacity="0.45"/>')
    middle = median(ratios)
    x = left + _place(middle)
    parts.append(f'<line x1="{x:.1f}" y1="{top + 11}" x2="{x:.1f}" y2="{top + 42}" stroke="{colour}" stroke-width="2.5"/>')
    parts.append(_label(x + 5, top + 10, f"{middle:.3f}", size=10, fill=TEXT, weight="bold" if colour == FIRST else "normal"))
    return parts


def _label(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", fill: str = TEXT, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
