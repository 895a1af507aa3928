"""How values look to people: durations, sizes, times, and tables of coloured cells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from supervisord_agents.cli import columns, sanitize
from supervisord_agents.core.model import State

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Style(Enum):
    """A colour by its meaning; the value is the parameter of the SGR sequence (ECMA-48, 8.3.117)."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    BAD = "31"
    BUSY = "36"
    WARNING = "33"


class Span(NamedTuple):
    """A piece of text with its style. The text may come from anywhere: it is made harmless when it is printed."""

    text: str
    style: Style = Style.PLAIN


Cell = Span | str
Row = Sequence[Cell]

_STATE_STYLES = {
    State.RUNNING: Style.BUSY,
    State.SUCCEEDED: Style.GOOD,
    State.FAILED: Style.BAD,
    State.DEAD: Style.BAD,
    State.CANCELLED: Style.WARNING,
    State.BACKING_OFF: Style.WARNING,
}


def state(value: State) -> Span:
    """The name of a task's state in its colour."""
    return Span(value.value, _STATE_STYLES.get(value, Style.PLAIN))


def duration(seconds: float) -> str:
    """Such as `0.31 s`, `12 s`, `4 min 5 s`, `3 h 2 min`, `5 d 1 h`."""
    if seconds < 0:
        return "0 s"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for size, name, lower_size, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // lower_size
            return f"{whole // size} {name}" + (f" {rest} {lower_name}" if rest else "")
    return f"{whole} s"


def size(count: float) -> str:
    """Such as `512 B`, `1.5 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    step = 0
    while count >= 1024 and step < len(_UNITS) - 1:
        count /= 1024
        step += 1
    return f"{count:.1f} {_UNITS[step]}"


def moment(at: float) -> str:
    """Local date and time of Unix seconds; a dash for 0, which stands for never."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"


def clock(at: float) -> str:
    """Local time of day of Unix seconds, to the millisecond."""
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at * 1000) % 1000:03d}"


def plural(count: int, noun: str) -> str:
    """Such as `1 task`, `3 tasks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(rows: Sequence[Row], *, header: Sequence[str] = (), indent: str = "") -> list[list[Span]]:
    """Lines of aligned cells; the last column, which is the place for free text, is not padded."""
    cells = [[_span(cell) for cell in row] for row in rows]
    if header:
        cells.insert(0, [Span(name, Style.FAINT) for name in header])
    widths = [max(columns.width(row[column].text) for row in cells) for column in range(len(cells[0]) - 1)] if cells else []
    return [[Span(indent), *_padded(row, widths)] for row in cells]


def _padded(row: list[Span], widths: list[int]) -> list[Span]:
    padded = [Span(f"{columns.padded(span.text, width)}  ", span.style) for span, width in zip(row, widths, strict=False)]
    return [*padded, row[-1]]


def _span(cell: Cell) -> Span:
    """The cell as it will be printed, so that it can be measured."""
    text, style = (cell, Style.PLAIN) if isinstance(cell, str) else cell
    return Span(sanitize.line(text), style)
