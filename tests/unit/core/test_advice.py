"""What is advised, and why."""

from __future__ import annotations

import msgspec
import pytest

from supervisord_agents.core.advice import Bounds, Situation, Verdict, advise, wait_s
from supervisord_agents.core.durations import AVERAGE, NOTHING_KNOWN, Prediction


def takes(seconds: float, penalty: float = 1.0) -> Prediction:
    return Prediction(seconds * penalty, seconds, seconds, AVERAGE, 0.1, 9, penalty)


IDLE = Situation(takes(10.0), overhead_s=0.5, idle=1)


@pytest.mark.parametrize(
    ("situation", "verdict", "reason"),
    [
        (IDLE, Verdict.DELEGATE, "it takes about 10 s; a worker is free for it"),
        (IDLE._replace(prediction=takes(0.9), overhead_s=0.01), Verdict.DO_IT_YOURSELF, "less than the 1 s from which"),
        (IDLE._replace(prediction=takes(2.0), overhead_s=1.1), Verdict.DO_IT_YOURSELF, "less than twice the 1.1 s"),
        (IDLE._replace(prediction=takes(2.3), overhead_s=1.1), Verdict.DELEGATE, "a worker is free"),
        (IDLE._replace(prediction=takes(0.9, 8.0)), Verdict.DO_IT_YOURSELF, "0.9 s"),
        (IDLE._replace(copy_s=30.0), Verdict.DO_IT_YOURSELF, "30 s of it to copy the workspace"),
        (
            IDLE._replace(prediction=takes(90.0), split="a file each"),
            Verdict.SPLIT,
            "90 s, more than 60 s, and can be split: a file each",
        ),
        (IDLE._replace(prediction=takes(90.0)), Verdict.DELEGATE, "no known way to split it; a worker is free"),
        (IDLE._replace(split="a file each"), Verdict.DELEGATE, "a worker is free"),
        (IDLE._replace(idle=0, wait_s=4.0), Verdict.DELEGATE, "no worker is free for it before about 4 s from now"),
        (IDLE._replace(idle=0, wait_s=900.0), Verdict.DO_IT_YOURSELF, "no worker is free for it before about 15 min from now"),
        (IDLE._replace(held="pool p is paused"), Verdict.DO_IT_YOURSELF, "pool p is paused"),
        (IDLE._replace(prediction=NOTHING_KNOWN, split="a file each"), Verdict.DELEGATE, "nothing is known of how long it takes"),
        (IDLE._replace(prediction=NOTHING_KNOWN, idle=0, wait_s=9.0), Verdict.DELEGATE, "no worker is free"),
    ],
)
def test_advice(situation: Situation, verdict: Verdict, reason: str) -> None:
    given, why = advise(situation, Bounds())
    assert (given, reason in why) == (verdict, True), why


def test_the_bounds_are_the_configured_ones() -> None:
    assert advise(IDLE, Bounds(min_s=11.0))[0] is Verdict.DO_IT_YOURSELF
    assert advise(IDLE._replace(split="by file"), Bounds(split_s=9.0))[0] is Verdict.SPLIT


@pytest.mark.parametrize(
    ("workers", "running", "waiting", "expected"),
    [
        (2, [], [], 0.0),
        (2, [5.0, 3.0], [], 3.0),
        (2, [5.0, 3.0], [4.0], 5.0),
        (2, [5.0, 3.0], [4.0, 4.0], 7.0),
        (2, [5.0], [1.0, 1.0], 2.0),
        (1, [5.0, 3.0], [], 5.0),
        (0, [], [2.0], 2.0),
    ],
)
def test_how_long_one_waits_behind_others(workers: int, running: list[float], waiting: list[float], expected: float) -> None:
    assert wait_s(workers, running, waiting) == expected


def test_a_prediction_is_data() -> None:
    assert msgspec.structs.asdict(takes(2.0, 3.0))["seconds"] == 6.0
