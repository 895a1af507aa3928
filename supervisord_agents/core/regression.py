"""A regression that learns one observation at a time: recursive least squares with forgetting.

The method is that of S. Haykin, "Adaptive Filter Theory" (fifth edition, chapter 10), with two guards: one far off moves
the weights no further than one at `FAR`, and the covariance, which forgetting lets grow wherever all are alike, is held at a
trace of `MOST_TRACE`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

KEPT = 0.99
"""Of an observation's weight, with each further one: after seventy it counts half."""
FAR = 3.0
DOUBT = 10.0
"""Variance of a weight in the beginning, where that of an observation is one: what is told soon counts for more."""
MOST_TRACE = 100.0
MOST_WEIGHT = 50.0
SPREAD_KEPT = 0.9


class Regression(msgspec.Struct, array_like=True):
    """`y` by the features `x`, as many as there are weights; all of them of the order of one to ten."""

    weights: list[float]
    covariance: list[list[float]] = []
    count: int = 0
    variance: float = 0.0
    """Of the errors of its predictions, exponentially weighted."""

    def __post_init__(self) -> None:
        if not self.covariance:
            self.covariance = _doubt(len(self.weights))

    def predict(self, x: Sequence[float]) -> float:
        """`y`, as far as it is known."""
        return sum(map(float.__mul__, self.weights, x))

    def learn(self, x: Sequence[float], y: float) -> None:
        """Take up one observation."""
        off = min(max(y - self.predict(x), -FAR), FAR)
        self.variance = off * off if not self.count else SPREAD_KEPT * self.variance + (1 - SPREAD_KEPT) * off * off
        self.count += 1
        seen = [sum(map(float.__mul__, row, x)) for row in self.covariance]
        scale = KEPT + sum(map(float.__mul__, seen, x))
        gain = [value / scale for value in seen]
        self.weights = [min(max(w + g * off, -MOST_WEIGHT), MOST_WEIGHT) for w, g in zip(self.weights, gain, strict=True)]
        self.covariance = [
            [(value - g * other) / KEPT for value, other in zip(row, seen, strict=True)]
            for row, g in zip(self.covariance, gain, strict=True)
        ]
        self._hold()

    def _hold(self) -> None:
        diagonal = [row[place] for place, row in enumerate(self.covariance)]
        trace = sum(diagonal)
        if not (min(diagonal) > 0.0 and math.isfinite(trace)):  # rounding has used it up
            self.covariance = _doubt(len(self.weights))
        elif trace > MOST_TRACE:
            self.covariance = [[value * MOST_TRACE / trace for value in row] for row in self.covariance]


def _doubt(size: int) -> list[list[float]]:
    return [[DOUBT * (row == column) for column in range(size)] for row in range(size)]
