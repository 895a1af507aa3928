"""Token counts out of the answers of model APIs. Pure: bytes in, counts out, bounded memory.

Sources: OpenAI API reference (chat completions `usage`; responses `response.usage`), Anthropic "Streaming messages"
(`message_start`, cumulative `message_delta`), Gemini API `UsageMetadata`; the event-stream format is WHATWG HTML, 9.2.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from supervisord_agents.config import Provider
from supervisord_agents.core.model import MAX_COST_USD, MAX_TOKENS, Usage

DOCUMENT_BYTES = 1024 * 1024
"""JSON up to this size is parsed whole."""
TAIL_BYTES = 64 * 1024
"""Of larger JSON only this much of its end is kept: all three APIs put the counts after the content."""

_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DATA = b"data"
_OTHER = b"other"
_NAME_BYTES = 64
"""No field of an event stream has a longer name."""


class Tokens(msgspec.Struct, frozen=True):
    """Token counts; None: not said."""

    input: int | None = None
    output: int | None = None

    def updated(self, newer: Tokens) -> Tokens:
        """These counts, replaced where `newer` says something."""
        return Tokens(
            self.input if newer.input is None else newer.input,
            self.output if newer.output is None else newer.output,
        )


def priced(tokens: Tokens, provider: Provider) -> Usage:
    """The usage at the provider's prices."""
    incoming, outgoing = tokens.input or 0, tokens.output or 0
    cost = (incoming * provider.input_usd_per_mtok + outgoing * provider.output_usd_per_mtok) / 1e6
    return Usage(incoming, outgoing, min(cost, MAX_COST_USD))


class Reader(Protocol):
    """Reads an answer as it passes; `tokens` is what is known so far."""

    @property
    def tokens(self) -> Tokens: ...

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...


def reader(dialect: str, content_type: str) -> Reader:
    """The reader for an answer of this type."""
    if content_type.split(";")[0].strip().lower() == "text/event-stream":
        return EventStream(dialect)
    return Document(dialect)


class Document:
    """One JSON document, in pieces."""

    def __init__(self, dialect: str) -> None:
        self.tokens = Tokens()
        self._dialect = dialect
        self._data = bytearray()
        self._cut = False

    def feed(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > (TAIL_BYTES * 2 if self._cut else DOCUMENT_BYTES):
            self._cut = True
            del self._data[:-TAIL_BYTES]

    def finish(self) -> None:
        data, self._data = bytes(self._data), bytearray()
        if b"sage" not in data:
            return
        if self._cut:
            self.tokens = _from_tail(self._dialect, data)
            return
        try:
            document = msgspec.json.decode(data)
        except _NO_JSON:
            return
        # Gemini streams without `alt=sse` are an array of answers.
        for item in document if isinstance(document, list) else (document,):
            self.tokens = self.tokens.updated(counts(self._dialect, item))


class EventStream:
    """Server-sent events, in pieces of any size."""

    def __init__(self, dialect: str) -> None:
        self.tokens = Tokens()
        self._dialect = dialect
        self._event = Document(dialect)
        self._line = bytearray()
        self._field = b""
        self._after_return = False

    def feed(self, chunk: bytes) -> None:
        if not chunk:
            return
        # A line ends with CR LF, LF or CR: the LF of a pair that was cut in two ends nothing.
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_return = chunk.endswith(b"\r")
        *complete, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for piece in complete:
            self._part_of_line(piece)
            self._end_of_line()
        self._part_of_line(rest)

    def finish(self) -> None:
        # An event without its blank line is not dispatched to a client, but its counts are as true.
        self._end_of_line()
        self._end_of_event()

    def _part_of_line(self, piece: bytes) -> None:
        """Find the name of the field, and pass the value of a data field on as it comes."""
        if self._field == _DATA:
            self._event.feed(piece)
        if self._field:
            return
        self._line += piece
        name, colon, value = self._line.partition(b":")
        if colon:
            self._field = bytes(name) or _OTHER
            if name == _DATA:
                self._event.feed(bytes(value))
        elif len(self._line) > _NAME_BYTES:
            self._field = _OTHER

    def _end_of_line(self) -> None:
        blank = not self._field and not self._line
        if self._field == _DATA:
            self._event.feed(b"\n")
        self._line.clear()
        self._field = b""
        if blank:
            self._end_of_event()

    def _end_of_event(self) -> None:
        self._event.finish()
        self.tokens = self.tokens.updated(self._event.tokens)
        self._event = Document(self._dialect)


def counts(dialect: str, answer: Any) -> Tokens:
    """The counts in one decoded answer or event; empty where there are none, or where they make no sense."""
    if not isinstance(answer, dict):
        return Tokens()
    if dialect == "gemini":
        return _tokens(dialect, answer.get("usageMetadata"))
    inner = answer.get("message") if dialect == "anthropic" else answer.get("response")
    nested = inner.get("usage") if isinstance(inner, dict) else None
    return _tokens(dialect, nested).updated(_tokens(dialect, answer.get("usage")))


_Fields = tuple[tuple[str, ...], ...]

_FIELDS: dict[str, tuple[_Fields, _Fields]] = {
    "openai": ((("prompt_tokens", "input_tokens"),), (("completion_tokens", "output_tokens"),)),
    "anthropic": (
        (("input_tokens",), ("cache_creation_input_tokens",), ("cache_read_input_tokens",)),
        (("output_tokens",),),
    ),
    "gemini": (
        (("promptTokenCount",), ("toolUsePromptTokenCount",)),
        (("candidatesTokenCount",), ("thoughtsTokenCount",)),
    ),
}
"""What adds up to the input and to the output; each summand has one name, or two of which an endpoint may give either or both."""

_KEY = {"openai": b'"usage"', "anthropic": b'"usage"', "gemini": b'"usageMetadata"'}


def _tokens(dialect: str, usage: Any) -> Tokens:
    if not isinstance(usage, dict):
        return Tokens()
    incoming, outgoing = _FIELDS[dialect]
    return Tokens(_sum(usage, incoming), _sum(usage, outgoing))


def _sum(usage: dict[str, Any], summands: _Fields) -> int | None:
    values = [value for value in (_first(usage, names) for names in summands) if value is not None]
    return min(sum(values), MAX_TOKENS) if values else None


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """The first count among these names; more than any model reads in a lifetime is damage, not a count."""
    values = map(usage.get, names)
    return next((value for value in values if type(value) is int and 0 <= value <= MAX_TOKENS), None)


def _from_tail(dialect: str, data: bytes) -> Tokens:
    """The counts of the last usage object in the end of a document.

    Text inside a JSON string cannot be taken for it: its quotes are escaped.
    """
    key = _KEY[dialect]
    start = data.rfind(key)
    opening = data.find(b"{", start)
    if start < 0 or data[start + len(key) : opening].strip() != b":":
        return Tokens()
    depth = 0
    for end in range(opening, len(data)):
        depth += (data[end] == ord("{")) - (data[end] == ord("}"))
        if depth == 0:
            try:
                return _tokens(dialect, msgspec.json.decode(data[opening : end + 1]))
            except _NO_JSON:
                return Tokens()
    return Tokens()
