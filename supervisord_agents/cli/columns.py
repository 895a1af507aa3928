"""How much room a text takes on a terminal: an East Asian character or an emoji takes two columns, a combining mark none.

Terminals differ in a few sequences, such as emoji joined to one: those are counted as if they were not joined, which is never
too little.
"""

from __future__ import annotations

import unicodedata

_NO_WIDTH = frozenset({"Mn", "Me"})
_WIDE_FORM = "\ufe0f"
"""Asks for the wide form of the character before it."""
ELLIPSIS = "…"


def width(text: str) -> int:
    """The columns that a text without control characters takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, columns: int) -> str:
    """The text if it takes at most so many columns, else its beginning with an ellipsis."""
    if width(text) <= columns:
        return text
    room = columns - width(ELLIPSIS)
    if room < 0:
        return ""
    return text[: _fitting(text, room)] + ELLIPSIS


def padded(text: str, columns: int) -> str:
    """The text with spaces up to that width."""
    return text + " " * (columns - width(text))


def _fitting(text: str, columns: int) -> int:
    """How many characters from the beginning fit."""
    used = 0
    for index, character in enumerate(text):
        used += _width(character)
        if used > columns:
            return index
    return len(text)


def _width(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return int(character == _WIDE_FORM)
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
