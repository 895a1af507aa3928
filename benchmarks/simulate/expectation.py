"""What was to be expected, what was measured, and whether that holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Expectation(NamedTuple):
    what: str
    expected: str
    """Empty: the figure is only told."""
    measured: str
    held: bool = True


def told(what: str, measured: str) -> Expectation:
    """A figure of which nothing is expected."""
    return Expectation(what, "", measured)


def show(title: str, found: Iterable[Expectation]) -> bool:
    """Print a table; whether all of it holds."""
    print(f"{title}\n  {'':<58}{'expected':<22}{'measured':<34}held")
    good = True
    for what, expected, measured, held in found:
        good &= held
        print(f"  {what:<58}{expected:<22}{measured:<34}{('yes' if held else 'NO') if expected else ''}")
    print()
    return good
