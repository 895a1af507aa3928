"""What is believed of a model's answer, and what is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from supervisord_agents.core.digest import Digest
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.grammar import form_of
from supervisord_agents.tracker.story import Story, StoryRefused, answer_schema, checked, checked_answer, schema_of
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of


@pytest.fixture
def digest() -> Digest:
    driven = Driven()
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d"), a_task("e"), a_task("f", "e"))
    driven.run("g.a")
    driven.start("g.b")
    driven.fail("g.e")
    return digest_of(driven)


def told(digest: Digest, **changed: Any) -> str:
    """What the rules tell, but for what is changed."""
    return msgspec.json.encode({**msgspec.to_builtins(rules.story(digest)), **changed}).decode()


def test_what_the_rules_tell_is_true(digest: Digest) -> None:
    story = checked(told(digest), digest)
    assert story.blocked_on == ["g.b"]
    assert story.next_actionable == ["g.d"]
    assert {entry.id: entry.status for entry in story.tasks}["g.f"] == "failed"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"blocked_on": ["g.b", "g.zz"]}, "blocked_on names tasks that do not exist: g.zz"),
        ({"blocked_on": []}, "blocked_on lacks g.b"),
        ({"blocked_on": ["g.b", "g.d"]}, "blocked_on must not name g.d"),
        ({"next_actionable": ["g.c"]}, "next_actionable lacks g.d"),
        ({"next_actionable": ["h.d"]}, "next_actionable names tasks that do not exist: h.d"),
        ({"tasks": [{"id": "g.x", "status": "running"}]}, "tasks names tasks that do not exist: g.x"),
        ({"tasks": [{"id": "g.b", "status": "succeeded"}]}, "g.b is running, not succeeded"),
        ({"tasks": [{"id": "g.b", "status": "exploded"}]}, "exploded is no state of a task: g.b is running"),
        ({"tasks": [{"id": "g.c", "status": "blocked", "waits_for": ["g.q"]}]}, "waits_for names tasks that do not exist: g.q"),
        ({"tasks": [{"id": "g.c", "status": "blocked", "waits_for": ["g.d"]}]}, "g.c does not wait for g.d"),
        (
            {
                "tasks": [
                    {"id": "g.c", "status": "blocked", "waits_for": ["g.b"]},
                    {"id": "g.b", "status": "running", "waits_for": ["g.c"]},
                ]
            },
            "it has tasks wait for each other that do not: g.c -> g.b -> g.c",
        ),
        ({"summary": " \n\x07"}, "the summary is empty"),
        ({"summary": "g.b runs; g.zz comes next."}, "the summary names tasks that do not exist: g.zz"),
        ({"summary": "gabcdefg.b runs."}, "the summary names tasks that do not exist: gabcdefg.b"),
        ({"summary": "g.e has succeeded."}, "the summary says that g.e is succeeded, but it is failed"),
        ({"summary": "g.b: done."}, "the summary says that g.b is done, but it is running"),
        ({"summary": "All tasks are done."}, "the summary says that all is done, but 3 tasks have not ended"),
        ({"summary": "Everything has been completed."}, "the summary says that all is completed"),
        ({"summary": "Nothing has failed."}, "the summary says that nothing is failed, but g.e is failed"),
        ({"summary": "g.b waits for g.d."}, "the summary says that g.b waits for g.d, but it does not"),
        ({"summary": "The work goes on."}, "the summary leaves out g.e, which failed"),
        ({"summary": "g.b runs, and g.f waits."}, "the summary leaves out g.e, which failed"),
        ({"summary": "g.b runs." + " x" * 400 + " g.e failed."}, "the summary leaves out g.e, which failed"),
        ({"summary": "The summary leaves out g.b, which runs. g.b runs."}, "repeats what was wrong with the last one"),
        ({"summary": 7}, "it is not JSON of the form"),
        ({"tasks": "none"}, "it is not JSON of the form"),
    ],
)
def test_what_is_not_true_is_refused_by_name(digest: Digest, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(StoryRefused) as refused:
        checked(told(digest, **changed), digest)
    assert says in refused.value.message


@pytest.mark.parametrize("text", ["", "no JSON", "[1, 2]", "{", '{"summary": "x"', "}{", "[" * 10_000 + "{}" + "]" * 10_000])
def test_what_is_no_json_is_refused(digest: Digest, text: str) -> None:
    with pytest.raises(StoryRefused, match=r"answer in JSON only|lacks"):
        checked(text, digest)


def test_words_around_the_json_do_no_harm(digest: Digest) -> None:
    assert checked(f"Here it is:\n```json\n{told(digest)}\n```\nAnything else?", digest).blocked_on == ["g.b"]


def test_what_all_did_may_be_said_when_it_is_so() -> None:
    driven = Driven()
    driven.submit(a_task("a"))
    driven.run("g.a")
    digest = digest_of(driven)
    assert checked(told(digest, summary="All tasks have succeeded."), digest).summary == "All tasks have succeeded."


def test_a_summary_is_one_plain_paragraph_of_bounded_length(digest: Digest) -> None:
    story = checked(told(digest, summary="g.e\x1b[31m failed.\n\n" + "x" * 5_000), digest)
    assert story.summary.startswith("g.e [31m failed. xxx")
    assert len(story.summary) == 800


def test_what_is_cited_exists(digest: Digest) -> None:
    answer = checked_answer('{"answer": "g.c waits for g.b.", "citations": ["g.b"]}', digest)
    assert answer.citations == ["g.b", "g.c"]
    with pytest.raises(StoryRefused, match=r"citations names tasks that do not exist: g\.zz"):
        checked_answer('{"answer": "yes", "citations": ["g.zz"]}', digest)
    with pytest.raises(StoryRefused, match="the answer names tasks that do not exist"):
        checked_answer('{"answer": "g.zz", "citations": []}', digest)


def test_an_answer_that_takes_long_to_look_through_is_not(digest: Digest) -> None:
    with pytest.raises(StoryRefused, match=r"it is of \d+ characters"):
        checked_answer(json.dumps({"answer": "g.b runs. " * 400_000, "citations": []}), digest)


def values(schema: Any) -> list[Any]:
    """All that an enum of the schema names."""
    if isinstance(schema, dict):
        return [*schema.get("enum", []), *(value for part in schema.values() for value in values(part))]
    return [value for part in schema for value in values(part)] if isinstance(schema, list) else []


def test_no_id_fits_the_schema_that_does_not_exist(digest: Digest) -> None:
    found = values(schema_of(digest))
    assert ["g.b"] in found
    assert ["g.d"] in found
    assert {"id": "g.b", "status": "running", "waits_for": []} in found[-1]
    ids = {value for value in values(answer_schema(digest)) if isinstance(value, str)}
    assert ids == set(digest.by_id)


def test_a_local_model_draws_the_summary_only(digest: Digest) -> None:
    given = json.loads(form_of(schema_of(digest)).beginning.removesuffix(",") + "}")
    assert given == {name: value for name, value in json.loads(told(digest)).items() if name != "summary"}


def test_a_story_of_nothing_is_a_story() -> None:
    digest = digest_of(Driven(), "")
    assert rules.story(digest) == Story(summary="There are no open tasks.")
    assert checked(told(digest), digest).summary == "There are no open tasks."
    assert schema_of(digest)["properties"]["tasks"] == {"enum": [[]]}
