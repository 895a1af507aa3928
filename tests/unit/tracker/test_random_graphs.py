"""Whatever has happened to whatever graph: the rules' words pass the check of models, and fit the forms that models are given."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.questions import Question
from supervisord_agents.tracker.shapes import loose, plain, whole
from supervisord_agents.tracker.story import TASKS, answer_schema, checked, checked_answer, schema_of
from supervisord_agents.tracker.words import left_out
from tests.support.graphs import graphs
from tests.support.scheduling import POOL, Driven
from tests.support.telling import digest_of

QUESTIONS = (
    "what is blocked?",
    "what failed?",
    "next?",
    "what runs?",
    "what ended?",
    "when?",
    "is all well?",
    "why does {} wait?",
)
acts = st.lists(st.tuples(st.sampled_from(("start", "succeed", "fail", "fail for good", "cancel", "wait")), st.integers(0, 8)))


def happened(specs: list[TaskSpec], happenings: list[tuple[str, int]]) -> Driven:
    """What cannot happen to any task, does not."""
    driven = Driven()
    driven.submit(*specs)
    for what, number in happenings:
        offered = [offer.task for offer in driven.scheduler.starts({POOL: 9})]
        running = sorted(task.id for task in driven.scheduler.running_tasks())
        there = {"start": offered, "cancel": [task.id for task in driven.scheduler.tasks.values() if not task.ended]}
        fits = there.get(what, running)
        if what == "wait":
            driven.wait(float(number))
        elif fits:
            _happen(driven, what, fits[number % len(fits)])
    return driven


def _happen(driven: Driven, what: str, task: str) -> None:
    match what:
        case "start":
            driven.start(task)
        case "succeed":
            driven.finish(task)
        case "fail":
            driven.finish(task, "TIMEOUT")
        case "fail for good":
            driven.finish(task, "WORKER_FAILED")
        case "cancel":
            driven.cancel(task)


def fits(found: dict[str, Any], schema: dict[str, Any]) -> None:
    """Also for providers that take less of a schema."""
    for form in (schema, whole(schema), plain(schema), loose(schema)):
        assert jsonschema.Draft202012Validator(form).is_valid(found)


@settings(max_examples=100, deadline=None)
@given(graphs(), acts, st.sampled_from(("g", "")), st.sampled_from(QUESTIONS))
def test_what_the_rules_tell_is_never_refused(
    specs: list[TaskSpec], happenings: list[tuple[str, int]], subject: str, question: str
) -> None:
    digest = digest_of(happened(specs, happenings), subject)
    story = msgspec.to_builtins(rules.story(digest))
    assert checked(msgspec.json.encode(story).decode(), digest).summary == story["summary"]
    fits({**story, "tasks": story["tasks"][:TASKS]}, schema_of(digest))
    _ask(digest, question.format(digest.inside[0].id))


def _ask(digest: Digest, question: str) -> None:
    answer = rules.answer(question, digest)
    told = {"answer": answer.answer, "citations": answer.citations[:10]}
    assert checked_answer(msgspec.json.encode(told).decode(), digest).answer == answer.answer
    fits(told, answer_schema(digest, [node.id for node in Question(question, digest).names]))


@settings(max_examples=100, deadline=None)
@given(graphs(), acts)
def test_a_summary_may_say_nothing_only_where_nothing_matters(specs: list[TaskSpec], happenings: list[tuple[str, int]]) -> None:
    digest = digest_of(happened(specs, happenings))
    matters = digest.failed or digest.holders or digest.running
    missing = left_out(digest, "It goes on.")
    assert bool(missing) == bool(matters)
    assert left_out(digest, f"It goes on, but see {missing}.") == ""
    if digest.counts.keys() == {State.SUCCEEDED}:
        assert not missing
