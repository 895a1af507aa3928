"""What people read about the supervisor, its tasks and its events."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest

from supervisord_agents.cli import events, render, status, story, tasks, waiting
from supervisord_agents.cli.render import Cell, Span
from supervisord_agents.core.model import Failure, State, Usage
from supervisord_agents.wire.messages import Item, Recovery, TaskView
from supervisord_agents.wire.story import StoryReply
from supervisord_agents.wire.tracker import ModelView, TrackerView

NOW = 1_000.0
CLEAN = Recovery(at=1.0, clean=True, records=40, tasks=12, requeued=0, adopted=0, torn_bytes=0, seconds=0.01)


def text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Span) else cell


def view(state: State, **fields: Any) -> TaskView:
    given = {"agent": "qwen", "type": "", "priority": 5, "attempt": 1, "max_retries": 3, "submitted_at": NOW - 9}
    return TaskView(id="g1.A", graph="g1", state=state, **{**given, **fields})


def test_the_last_start() -> None:
    empty = msgspec.structs.replace(CLEAN, records=0, tasks=0)
    crash = msgspec.structs.replace(CLEAN, clean=False, requeued=2, adopted=1, torn_bytes=2048)
    assert status.recovery(empty) == "on an empty journal"
    assert status.recovery(CLEAN) == "after an orderly stop: 12 tasks from 40 records, in 0.01 s"
    assert status.recovery(crash) == (
        "after a crash: 12 tasks from 40 records, 2 that ran queued again, 1 unseen ends kept, "
        "2.0 KiB of a torn, never acknowledged tail cut, in 0.01 s"
    )


def test_whose_words_a_story_is_in() -> None:
    told = StoryReply(graph="g1", at=NOW, summary="1 runs: g1.a.", by="rules", told_at=NOW)
    assert [text(cell) for cell in story.words(told)] == ["1 runs: g1.a."]
    model = msgspec.structs.replace(told, by="local (qwen)", told_at=time.time() - 1, behind=2)
    assert re.fullmatch(r"  \(in the words of local \(qwen\), 1\.\d+ s old, 2 changes ago\)", text(story.words(model)[1]))


def test_the_models_of_the_tracker() -> None:
    local, mini = ModelView(name="local", about="qwen"), ModelView(name="mini")
    assert text(status.tracker(TrackerView(models=[local], answers=1), NOW)) == "local (qwen) ready: 1 answer"
    found = TrackerView(
        models=[local, mini], answers=9, refused=2, failed=3, usage=Usage(100, 20, 0.5), spent_usd=0.75, limit_usd=1.0
    )
    assert text(status.tracker(found, NOW)) == (
        "local (qwen) ready, mini ready: 9 answers, 2 refused; 100 tokens in, 20 out, $0.5000; $0.75 of $1.00 in 24 h; "
        "3 times none answered (the log says why)"
    )
    assert list(status.troubles(found)) == []


def test_why_models_are_not_asked() -> None:
    models = [
        ModelView(name="local", state="loading", since=NOW - 12, why="it was ended by signal 9"),
        ModelView(name="gone", state="left_alone", since=NOW - 5, until=NOW + 55, why="it answered 500"),
        ModelView(name="mini", state="over_limit", until=NOW + 3600, why="$1.00 of $1.00 a day are spent"),
        ModelView(name="dear", state="over_limit", why="an answer may cost $2.00, and a day $1.00"),
        ModelView(name="idle", state="unloaded", since=NOW - 5),
    ]
    found = TrackerView(models=models)
    assert text(status.tracker(found, NOW)) == (
        "local loading for 12 s, gone left alone, mini over its limit, dear over its limit, idle unloaded: 0 answers"
    )
    assert list(status.troubles(found)) == [
        "local is started again; it failed: it was ended by signal 9",
        f"gone is left alone until {render.moment(NOW + 55)}, for it failed: it answered 500 (see: agentctl breakers)",
        f"mini is not asked until {render.moment(NOW + 3600)}: $1.00 of $1.00 a day are spent (tracker.cost_usd_per_day)",
        "dear is not asked for good: an answer may cost $2.00, and a day $1.00 (tracker.cost_usd_per_day)",
    ]


def test_words_that_come_too_late() -> None:
    found = TrackerView(models=[ModelView(name="local")], answers=5, refused=1, late=3)
    assert text(status.tracker(found, NOW)) == "local ready: 5 answers, 1 refused, 3 too late"
    assert list(status.troubles(found)) == [
        "most words come too late to be shown: raise tracker.stale_s, or lower tracker.prompt_tokens"
    ]
    assert list(status.troubles(msgspec.structs.replace(found, late=2))) == []


def test_the_sandbox() -> None:
    assert text(status.sandbox({"seccomp": "on", "landlock": "on"})) == "all 2 layers on"
    partly = status.sandbox({"seccomp": "on", "cgroup": "no controllers"})
    assert text(partly) == "1 layers on, off: cgroup (see: agentctl doctor)"


FAILURE = Failure(code="TIMEOUT", message="too long")


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (view(State.RUNNING, progress=0.4, progress_message="reading"), "40 % reading"),
        (view(State.RUNNING, progress_message="reading"), "reading"),
        (view(State.RUNNING), ""),
        (view(State.BLOCKED, waits_for=["g1.B", "g1.C"], waits_for_count=2), "waits for g1.B, g1.C"),
        (view(State.BLOCKED, waits_for=list("ABCDE"), waits_for_count=7), "waits for A, B, C, D, E and 2 more"),
        (view(State.BACKING_OFF, retry_at=NOW + 30, failure=FAILURE), "again in 30 s: TIMEOUT too long"),
        (view(State.FAILED, failure=FAILURE), "TIMEOUT too long"),
        (view(State.SUCCEEDED, failure=FAILURE), ""),
        (view(State.READY), ""),
    ],
)
def test_the_remark_about_a_task(task: TaskView, says: str) -> None:
    assert text(tasks.remark(task, NOW)) == says


def test_usage() -> None:
    assert tasks.usage(Usage()) == ""
    assert tasks.usage(Usage(12_345, 67, 0.5)) == "12,345 tokens in, 67 out, $0.5000"


def test_the_line_of_progress_of_a_wait() -> None:
    rows = [view(State.SUCCEEDED), view(State.RUNNING, progress=0.4, progress_message="reading"), view(State.BLOCKED)]
    assert waiting.summary(rows) == "1 of 3 ended, 1 blocked, 1 running; g1.A 40 % reading"
    assert waiting.summary([view(State.SUCCEEDED)]) == "1 of 1 ended"


def described(item: Item) -> list[str]:
    return ["".join(map(text, line[1:])) for line in events.describe(item)]


def item(kind: str, **fields: Any) -> Item:
    return Item(kind=kind, token="3.1", at=NOW, task="g1.A", **fields)


def test_events() -> None:
    failed = item("state", state=State.FAILED, attempt=2, failure=FAILURE)
    assert described(failed) == ["g1.A  failed  attempt 2  TIMEOUT too long"]
    assert described(item("progress", progress=0.5, message="half")) == ["g1.A  50 % half"]
    assert described(item("log", data=b"one\ntwo\xff\n")) == ["g1.A  | one", "g1.A  | two\\xff"]
    (gap,) = events.describe(Item(kind="gap", token="3.1", at=0.0, message="older items are gone."))
    assert text(gap[0]) == "… older items are gone."
