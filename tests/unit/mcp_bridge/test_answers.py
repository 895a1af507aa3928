"""Answers are short, whatever they are about."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.core.model import Failure, Result, State
from supervisord_agents.mcp_bridge import answers
from supervisord_agents.wire.messages import SubmitReply, TaskView

NOW = 1_000.0


def view(name: str, state: State = State.SUCCEEDED, **fields: Any) -> TaskView:
    times = {"started_at": NOW - 5, "ended_at": NOW - 2} if state is State.SUCCEEDED else {}
    given = {"attempt": 1, "max_retries": 3, "submitted_at": NOW - 9, "priority": 5, "type": "", "agent": "qwen"}
    return TaskView(id=name, graph="g1", state=state, **{**given, **times, **fields})


def test_a_line_of_a_task_that_ended() -> None:
    entry = answers.line(view("g1.A"), NOW)
    assert entry.model_dump(exclude_defaults=True) == {
        "id": "g1.A",
        "state": "succeeded",
        "agent": "qwen",
        "seconds": 3.0,
        "attempt": 1,
    }


def test_a_line_of_a_task_that_runs() -> None:
    entry = answers.line(view("g1.A", State.RUNNING, started_at=NOW - 4, progress=0.4, progress_message="reading a.py"), NOW)
    assert (entry.seconds, entry.progress) == (4.0, "40% reading a.py")


def test_a_task_that_has_not_started_took_no_time() -> None:
    assert answers.line(view("g1.A", State.CANCELLED, ended_at=NOW), NOW).seconds == 0.0


def test_an_error_says_what_to_do() -> None:
    failure = Failure(code="TIMEOUT", message="no end within 60 s.", hint="Raise timeout_s.")
    assert answers.error_text(failure) == "TIMEOUT: no end within 60 s. Raise timeout_s."


def test_a_wait_that_is_over_shows_outputs_as_data() -> None:
    found = {"g1.A": Result(task_id="g1.A", output={"text": "forty-two"})}
    answer = answers.waited(True, "all", [view("g1.A")], found, NOW)
    assert (answer.done, answer.tasks[0].output, answer.counts) == (True, {"text": "forty-two"}, {"succeeded": 1})
    assert answer.note == answers.DATA_NOTE


def test_a_wait_that_is_not_over_says_how_to_go_on() -> None:
    answer = answers.waited(False, "all", [view("g1.A", State.RUNNING)], {}, NOW)
    assert "call wait again" in answer.note


def test_a_long_output_is_cut_and_the_answer_says_so() -> None:
    found = {"g1.A": Result(task_id="g1.A", output="x" * 100_000)}
    answer = answers.waited(True, "all", [view("g1.A")], found, NOW)
    assert answer.tasks[0].output_cut
    assert "`result`" in answer.note
    assert len(answer.model_dump_json()) < 2_000


def test_of_many_tasks_the_failed_and_running_are_listed() -> None:
    views = [view(f"g1.t{number}") for number in range(200)]
    views[150] = view("g1.t150", State.DEAD)
    views[180] = view("g1.t180", State.RUNNING)
    answer = answers.waited(False, "all", views, {}, NOW)
    assert [entry.id for entry in answer.tasks[:2]] == ["g1.t150", "g1.t180"]
    assert (len(answer.tasks), answer.counts["succeeded"]) == (answers.MAX_LINES, 198)
    assert "150 more tasks" in answer.note


def test_a_task_that_is_blocked_says_by_what() -> None:
    blocked = view("g1.B", State.BLOCKED, waits_for=["g1.A", "g1.C"], waits_for_count=2)
    assert answers.line(blocked, NOW).waits_for == "g1.A, g1.C"
    assert answers.waits_for_text(msgspec.structs.replace(blocked, waits_for_count=9)) == "g1.A, g1.C and 7 more"


@pytest.mark.parametrize(("count", "note"), [(50, "Look."), (51, "Look. The first 50 of 51 ids are listed; `graph` stands for")])
def test_a_delegate_lists_the_first_ids(count: int, note: str) -> None:
    names = [f"g1.t{number}" for number in range(count)]
    answer = answers.delegated(SubmitReply(graph="g1", tasks=names), "Look.")
    assert (answer.graph, answer.tasks) == ("g1", names[:50])
    assert answer.note.startswith(note)


def test_causes_come_before_consequences() -> None:
    consequence = view("g1.B", State.FAILED, failure=Failure(code="DEPENDENCY_FAILED"))
    cause = view("g1.A", State.DEAD, failure=Failure(code="MAX_RETRIES"))
    assert answers.root_causes_first([consequence, cause]) == [cause, consequence]


def test_progress_in_a_line() -> None:
    running = view("g1.B", State.RUNNING, started_at=NOW, progress=0.5, progress_message="a.py")
    assert answers.progress_summary([view("g1.A"), running]) == "1 of 2 ended; g1.B 50% a.py"
    silent = view("g1.B", State.RUNNING, started_at=NOW)
    assert answers.progress_summary([view("g1.A"), silent]) == "1 of 2 ended; 1 running"


def test_a_result() -> None:
    found = Result(
        task_id="g1.A",
        status="failed",
        attempt=2,
        started_at="2026-11-25T10:06:18.639Z",
        completed_at="2026-11-25T10:06:21.639Z",
        output="short",
        error=Failure(code="TIMEOUT", message="too long."),
        tokens_used=7,
        cost_usd=0.25,
    )
    answer = answers.result(found, "/state/results/task_g1.A.json")
    assert (answer.id, answer.state, answer.attempt, answer.seconds) == ("g1.A", "failed", 2, 3.0)
    assert (answer.output, answer.error, answer.tokens, answer.cost_usd) == ("short", "TIMEOUT: too long.", 7, 0.25)
    assert answer.note == answers.DATA_NOTE


def test_a_result_of_a_task_that_never_ran_took_no_time() -> None:
    assert answers.result(Result(task_id="g1.A", status="cancelled", completed_at="2026-11-25T10:06:21.639Z"), "/p").seconds == 0


def test_a_result_that_is_cut_names_the_whole_file() -> None:
    answer = answers.result(Result(task_id="g1.A", output="x" * 50_000), "/p")
    assert "`path` holds all of it" in answer.note
    assert len(answer.output) < answers.OUTPUT_CHARACTERS + 100


def test_the_parts_of_an_output_stay_apart_when_cut() -> None:
    output, cut = answers.cut_output({"exit_code": 1, "stdout": "a" * 9_000, "stderr": "short"}, 900)
    assert cut
    assert (output["exit_code"], output["stderr"]) == (1, "short")
    assert len(output["stdout"]) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=500),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=50), inner, max_size=20),
    max_leaves=50,
)


@given(JSON, st.integers(min_value=50, max_value=2_000))
def test_an_output_is_whole_or_marked_as_cut_and_never_much_longer_than_the_limit(output: Any, limit: int) -> None:
    shown, cut = answers.cut_output(output, limit)
    assert cut or shown == output
    assert len(json.dumps(shown, ensure_ascii=False)) <= 7 * limit + 200


@pytest.mark.parametrize(("names", "shown", "note"), [([], 0, "ended before"), (["g1.A"], 1, "")])
def test_a_cancel(names: list[str], shown: int, note: str) -> None:
    answer = answers.cancelled(names)
    assert (answer.cancelled, len(answer.tasks)) == (len(names), shown)
    assert note in answer.note
