"""How many tokens a text will be, for a model whose vocabulary is elsewhere: from what it said of texts before."""

from __future__ import annotations

import math

FIRST = 0.5
"""Tokens a byte, before anything is known: prose has 0.25 in most vocabularies, ids and digits up to this."""
LEAST = 0.1
"""Less, or more than one, is not a vocabulary but a mistake or a lie."""
MARGIN = 1.1
LEARNT_FROM_BYTES = 400
"""A shorter prompt says more about its template than about its text."""


class Measure:
    """Rises with every prompt that had more tokens a byte, and falls slowly: too many is a shorter digest, too few a refusal."""

    def __init__(self) -> None:
        self._rate = FIRST

    def count(self, text: str) -> int:
        """The tokens of a text, rather too many."""
        return math.ceil(len(text.encode("utf-8", "replace")) * min(self._rate * MARGIN, 1.0))

    def learn(self, size_bytes: int, tokens: int) -> None:
        """So many bytes have been so many tokens."""
        if size_bytes < LEARNT_FROM_BYTES or tokens <= 0:
            return
        rate = min(max(tokens / size_bytes, LEAST), 1.0)
        self._rate = rate if rate > self._rate else self._rate + (rate - self._rate) / 8
