"""The one way to standard output and standard error.

People get lines of spans, made harmless span by span, coloured only on a terminal, where rows of tables are cut to its width too.
Programs (`--json`) get the structs of wire/messages.py with all their fields. What a worker wrote goes out byte for byte where
there is no terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import msgspec

from supervisord_agents.cli import columns, sanitize
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.errors import SupervisorError
from supervisord_agents.wire.messages import ErrorReply

NARROWEST = 40
_RESET = "\x1b[0m"
_ERASE_LINE = "\r\x1b[K"


class Output:
    """Where a command prints to; `json` is the user's `--json`."""

    def __init__(self, *, json: bool = False, colour: bool = True) -> None:
        self.json = json
        self.terminal = sys.stdout.isatty()
        able = os.environ.get("TERM") != "dumb"
        wanted = colour and able and not os.environ.get("NO_COLOR")
        self.watched = able and not json and sys.stderr.isatty()
        """Somebody sees `progress`."""
        self._colour_out = wanted and self.terminal
        self._colour_error = wanted and sys.stderr.isatty()
        self._progress_shown = False
        self._line_open = False
        """The terminal stands behind a piece of text that had no line feed at its end."""

    # Standard output

    def line(self, *cells: Cell) -> None:
        """One line for people."""
        self._print(cells, 0)

    def lines(self, rows: Iterable[Iterable[Cell]]) -> None:
        for row in rows:
            self._print(row, 0)

    def table(self, rows: Iterable[Iterable[Cell]]) -> None:
        """Lines to be seen under each other: cut where the terminal ends, for a table of broken lines is none."""
        width = _width_of_terminal() if self.terminal else 0
        for row in rows:
            self._print(row, width)

    def _print(self, cells: Iterable[Cell], width: int) -> None:
        self._end_line()
        print(_joined(cells, self._colour_out, width), flush=self.terminal)

    def flush(self) -> None:
        """Everything printed is out, for a reader of something that goes on; raises BrokenPipeError if there is none."""
        sys.stdout.flush()

    def value(self, value: Any) -> None:
        """One JSON document on one line."""
        print(json_line(value), flush=True)

    def worker_text(self, text: str) -> None:
        """A text that a worker wrote, with a line feed at its end if it has none and goes to a terminal."""
        if self.terminal:
            self.harmless(sanitize.block(text))
        else:
            self.raw(text.encode("utf-8", "surrogatepass"))

    def harmless(self, text: str) -> None:
        """A piece of text that has been made harmless already."""
        self._end_progress()
        sys.stdout.write(text)
        sys.stdout.flush()
        if text:
            self._line_open = self.terminal and not text.endswith("\n")

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if data:
            self._line_open = self.terminal and not data.endswith(b"\n")

    def named(self, reply: msgspec.Struct, names: Iterable[str], note: str) -> None:
        """A reply that is about tasks: their ids, a line each, and beside them what became of them."""
        if self.json:
            self.value(reply)
        else:
            self.lines([name] for name in names)
            self.note(note)

    # Standard error

    def note(self, *cells: Cell) -> None:
        """A line beside the answer, for people only: nothing in JSON mode."""
        if not self.json:
            self._end_line()
            print(_joined(cells, self._colour_error, 0), file=sys.stderr, flush=True)

    def worker_error_text(self, text: str) -> None:
        """A text that a worker wrote, to standard error."""
        self._end_line()
        harmless = sanitize.block(text) if sys.stderr.isatty() else text
        sys.stderr.write(harmless + ("" if not text or text.endswith("\n") else "\n"))

    def error(self, error: SupervisorError) -> None:
        """A refusal: `agentctl: …`, or the ErrorReply of the protocol in JSON mode."""
        self._end_line()
        if self.json:
            reply = ErrorReply(code=str(error.code), message=error.message, field=error.field, kept=error.kept, hint=error.hint)
            print(json_line(reply), file=sys.stderr)
        else:
            print(_joined((Span("agentctl:", Style.BAD), f" {error}"), self._colour_error, 0), file=sys.stderr)

    def progress(self, text: str) -> None:
        """The state of long work, on one line that is written over; only on a terminal."""
        if self.watched:
            # A line that fills the terminal would break, and only its last part could be written over.
            text = columns.cut(sanitize.line(text), _width_of_terminal() - 1)
            print(_ERASE_LINE + text, end="", file=sys.stderr, flush=True)
            self._progress_shown = True

    def _end_progress(self) -> None:
        if self._progress_shown:
            self._progress_shown = False
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)

    def _end_line(self) -> None:
        """Bring the terminal to the beginning of a line."""
        self._end_progress()
        if self._line_open:
            self._line_open = False
            print(flush=True)

    def interrupted(self) -> None:
        """Leave no half line behind."""
        self._end_line()

    def close(self) -> None:
        """Everything printed is out; raises BrokenPipeError if nobody reads it."""
        self._end_line()
        sys.stdout.flush()


def tolerate(stream: TextIO) -> None:
    """Make a stream print characters that its encoding lacks as escapes instead of raising."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _width_of_terminal() -> int:
    return max(shutil.get_terminal_size().columns, NARROWEST)


def json_line(value: Any) -> str:
    """A value as JSON on one line, every field of its structs named, harmless for a terminal."""
    return sanitize.json_text(msgspec.json.encode(_whole(value)).decode())


def json_text(value: Any) -> str:
    """A value as indented JSON, for people."""
    return msgspec.json.format(msgspec.json.encode(_whole(value)), indent=2).decode()


def _whole(value: Any) -> Any:
    """The value with structs as dictionaries of all their fields: those at their default are not left out."""
    if isinstance(value, msgspec.Struct):
        return {name: _whole(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def _joined(cells: Iterable[Cell], colour: bool, width: int) -> str:
    """The cells as one harmless line of at most `width` columns (0: no limit)."""
    parts = []
    room = width
    for cell in cells:
        span = Span(cell) if isinstance(cell, str) else cell
        text = sanitize.line(span.text)
        if width:
            text = columns.cut(text, room)
            room -= columns.width(text)
        parts.append(f"\x1b[{span.style.value}m{text}{_RESET}" if colour and span.style.value and text else text)
    return "".join(parts).rstrip(" ")
