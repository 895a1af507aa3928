"""Whether a task is worth handing over: delegate it, do it oneself, or split it first (research, section 5)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from supervisord_agents.core.durations import UNKNOWN, Prediction

WORTH = 2.0
"""A task is to take so many times what it costs to hand it over."""


class Verdict(StrEnum):
    """What is advised."""

    __hash__ = str.__hash__

    DELEGATE = "delegate"
    DO_IT_YOURSELF = "do it yourself"
    SPLIT = "split"


class Bounds(NamedTuple):
    """As configured."""

    min_s: float = 1.0
    """What takes less is not worth handing over, whatever that costs."""
    split_s: float = 60.0
    """What takes longer is better done in parts, where there is a way to part it."""


class Situation(NamedTuple):
    """What is known when somebody asks."""

    prediction: Prediction
    overhead_s: float
    """To hand it over and to have a worker begin."""
    copy_s: float = 0.0
    """To give the worker its copy of the workspace."""
    idle: int = 0
    """Tasks that its pool could take at once."""
    wait_s: float = 0.0
    """Until a worker is free for it."""
    held: str = ""
    """Why nobody may begin it at all, such as that its pool is paused."""
    split: str = ""
    """How such a task is split, in a phrase; empty: it cannot be."""


def advise(situation: Situation, bounds: Bounds) -> tuple[Verdict, str]:
    """The advice, and why in a sentence."""
    prediction = situation.prediction
    own_s = prediction.seconds / prediction.penalty
    cost_s = situation.overhead_s + situation.copy_s
    known = prediction.method != UNKNOWN
    about = f"it takes about {_seconds(own_s)}" if known else "nothing is known of how long it takes"
    if known and own_s < bounds.min_s:
        return Verdict.DO_IT_YOURSELF, f"{about}, less than the {_seconds(bounds.min_s)} from which handing it over is worth it"
    if known and own_s < WORTH * cost_s:
        copying = f", {_seconds(situation.copy_s)} of it to copy the workspace" if situation.copy_s else ""
        return Verdict.DO_IT_YOURSELF, f"{about}, less than twice the {_seconds(cost_s)} that it costs to hand it over{copying}"
    if situation.held:
        return Verdict.DO_IT_YOURSELF, situation.held
    if known and own_s > bounds.split_s and situation.split:
        return Verdict.SPLIT, f"{about}, more than {_seconds(bounds.split_s)}, and can be split: {situation.split}"
    whole = f", more than {_seconds(bounds.split_s)}, but there is no known way to split it" if own_s > bounds.split_s else ""
    if situation.idle:
        return Verdict.DELEGATE, f"{about}{whole}; a worker is free for it"
    wait = f"no worker is free for it before about {_seconds(situation.wait_s)} from now"
    if known and situation.wait_s > own_s:
        return Verdict.DO_IT_YOURSELF, f"{about}, and {wait}"
    return Verdict.DELEGATE, f"{about}{whole}; {wait}"


def wait_s(workers: int, running: Iterable[float], waiting: Iterable[float]) -> float:
    """How long a task waits behind all of these: what is left of those that run, and what those that wait will take."""
    free_at = sorted(running)
    free_at = [0.0] * (max(workers, 1) - len(free_at)) + free_at
    heapq.heapify(free_at)
    while len(free_at) > max(workers, 1):  # the pool was made smaller
        heapq.heappop(free_at)
    for seconds in waiting:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return free_at[0]


def _seconds(seconds: float) -> str:
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
