"""Outputs are cut to what the daemon accepts, or refused."""

from __future__ import annotations

import pytest

from supervisord_agents.core.model import Failure, TaskSpec, Usage
from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.base import Outcome
from supervisord_agents.workers.child import Kept
from supervisord_agents.workers.ending import Refused, ending, shorten

TASK = frames.RunTask(task="g.t", attempt=2, spec=TaskSpec(), agent_class="", output_limit_bytes=1000)


def size(value: object) -> int:
    return len(frames.encoder.encode(value))


@pytest.mark.parametrize("output", [None, 3, "x" * 900, {"a": ["b"]}, [1] * 900])
def test_an_output_within_the_limit_stays_as_it_is(output: object) -> None:
    assert shorten(output, 1000) == (output, False)


def test_the_longest_texts_of_a_dictionary_are_cut_first() -> None:
    output, cut = shorten({"long": "ä" * 2000, "longer": "b" * 5000, "short": "kept", "n": 1}, 3000)
    assert cut
    assert size(output) <= 3000
    assert (output["short"], output["n"]) == ("kept", 1)
    assert output["longer"] == ""
    assert 2500 < len(output["long"].encode()) < 3000


@pytest.mark.parametrize("output", [list(range(10_000)), {"a": list(range(10_000)), "b": "x" * 10_000}])
def test_what_is_no_text_is_not_cut(output: object) -> None:
    with pytest.raises(Refused):
        shorten(output, 1000)


def test_a_success_whose_output_is_too_large_becomes_a_failure_that_says_how_large() -> None:
    frame = ending(TASK, Outcome(output=list(range(10_000)), usage=Usage(1, 2)))
    assert isinstance(frame, frames.TaskError)
    assert frame.truncated
    assert frame.usage == Usage(1, 2)
    assert "bytes; the limit is 1000" in frame.failure.message
    assert not frame.failure.retriable


def test_a_failure_keeps_its_reason_when_its_output_is_too_large() -> None:
    frame = ending(TASK, Outcome(output=list(range(10_000)), failure=Failure(code="TIMEOUT")))
    assert isinstance(frame, frames.TaskError)
    assert frame.failure.code == "TIMEOUT"


def test_a_message_that_is_endless_or_no_text_is_made_fit() -> None:
    frame = ending(TASK, Outcome(failure=Failure(code="WORKER_FAILED", message="\ud800" + "x" * 100_000)))
    assert isinstance(frame, frames.TaskError)
    assert frame.failure.message.startswith("\\ud800xxx")
    assert size(frame) < 10_000


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


class Odd:
    """A value of which even the class is unknown to the encoder."""


@pytest.mark.parametrize("output", [deep(101), deep(5000), {None: 1}, {"a": Odd()}, 1 << 70, "\ud800"])
def test_an_output_that_cannot_be_stored_is_a_failure_and_is_not_retried(output: object) -> None:
    frame = ending(TASK, Outcome(output=output))
    assert isinstance(frame, frames.TaskError)
    assert (frame.failure.code, frame.failure.retriable, frame.output) == ("WORKER_FAILED", False, None)
    assert "cannot be stored" in frame.failure.message


def test_an_output_nested_as_deep_as_allowed_stays() -> None:
    assert ending(TASK, Outcome(output=deep(100))) == frames.TaskResult(task="g.t", attempt=2, output=deep(100))


@pytest.mark.parametrize("usage", [Usage(-1), Usage(1 << 70), Usage(cost_usd=float("nan")), Usage(cost_usd=-1.0), None])
def test_a_usage_that_cannot_be_counts_as_nothing(usage: Usage) -> None:
    assert ending(TASK, Outcome(usage=usage)).usage == Usage()


def test_the_beginning_of_a_stream_is_kept() -> None:
    kept = Kept(5, tail=False)
    for piece in (b"abc", b"def", b"ghi"):
        kept.add(piece)
    assert (kept.bytes(), kept.truncated) == (b"abcde", True)


def test_the_end_of_a_stream_is_kept() -> None:
    kept = Kept(5, tail=True)
    for piece in (b"abc", b"defghijklmnop", b"q"):
        kept.add(piece)
    assert (kept.bytes(), kept.truncated) == (b"mnopq", True)


@pytest.mark.parametrize("tail", [True, False])
def test_a_stream_of_just_the_limit_is_whole(tail: bool) -> None:
    kept = Kept(3, tail=tail)
    kept.add(b"abc")
    assert (kept.bytes(), kept.truncated) == (b"abc", False)
