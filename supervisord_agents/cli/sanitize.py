r"""Text of workers, made harmless for a terminal.

A terminal obeys C0 and C1 control characters and the escape sequences they begin; bidirectional overrides, line separators and
invisible characters show a text as something that it is not. All of them are shown as `\x1b` or `\u202e` instead. What is
harmless comes out as it went in.
"""

from __future__ import annotations

import codecs
import re

_HARMFUL = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction
    "\u2028\u2029"  # line and paragraph separators
    "\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # invisible, and with no place in plain text
    "\ud800-\udfff"  # lone surrogates, which cannot be written at all
    "\U000e0000-\U000e007f"  # invisible tags
)
_IN_BLOCK = re.compile(f"[{_HARMFUL}]")
_IN_LINE = re.compile(f"[{_HARMFUL}\t\n]")


def line(text: str) -> str:
    """The text on one line: tabs and line feeds are shown escaped too."""
    return _IN_LINE.sub(_visible, text)


def block(text: str) -> str:
    """The text with its lines and tabs."""
    return _IN_BLOCK.sub(_visible, text)


def json_text(text: str) -> str:
    r"""An encoded JSON document with the same characters as `\u` escapes: the same document to every reader."""
    return _IN_BLOCK.sub(_json_escape, text)


class Stream:
    """Bytes that come in pieces, such as a log. Bytes that are not UTF-8 are shown as `\\xff`."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The harmless text of this piece; an incomplete character waits for the next one, unless this is the last."""
        return block(self._decoder.decode(data, final))


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
