"""From JSON schemas to grammars. That llama.cpp draws nothing else from them is seen in the integration tests, test_llama.py."""

from __future__ import annotations

from typing import Any

import pytest

from supervisord_agents.tracker.grammar import NoGrammar, form_of


def rules(schema: Any) -> dict[str, str]:
    lines = form_of(schema).gbnf.splitlines()
    return dict(line.split(" ::= ", 1) for line in lines)


@pytest.mark.parametrize(
    ("schema", "root", "rule"),
    [
        ({"enum": ["a", ["b", "c"]]}, "r0", r'"\"a\"" | "[\"b\", \"c\"]"'),
        ({"type": "string", "minLength": 1, "maxLength": 9}, r'"\"" char{1,9} "\""', None),
        ({"type": "string"}, r'"\"" char{0,} "\""', None),
        ({"type": "array", "items": {"type": "null"}}, "r0", '"[" ("null" (", " "null"){0,})? "]"'),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}, "r0", '"[" "null" (", " "null"){1,2} "]"'),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, "r0", '"[]"'),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, "r1", '"null" | r0'),
    ],
)
def test_a_schema_and_its_grammar(schema: Any, root: str, rule: str | None) -> None:
    found = rules(schema)
    assert found["root"] == root
    assert rule is None or found[root] == rule


def test_members_come_in_their_order() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"enum": [1]}}}
    assert rules(schema)["r1"] == r'"{" "\"a\": " "null" ", " "\"b\": " r0 "}"'


def test_what_is_given_is_no_part_of_the_grammar() -> None:
    given = {"blocked_on": {"enum": [["g1.a"]]}, "next": {"enum": [[]]}}
    form = form_of({"type": "object", "properties": {**given, "summary": {"type": "null"}}})
    assert form.beginning == '{"blocked_on": ["g1.a"], "next": [],'
    assert (
        rules({"type": "object", "properties": {**given, "summary": {"type": "null"}}})["root"]
        == r'" " "\"summary\": " "null" "}"'
    )
    assert form_of({"type": "object", "properties": given}) == (
        '{"blocked_on": ["g1.a"], "next": []',
        form_of({"type": "object", "properties": given}).gbnf,
    )


def test_equal_parts_are_one_rule() -> None:
    ids = {"enum": [f"g1.{number}" for number in range(1000)]}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": ids}, "b": {"type": "array", "items": ids}}}
    assert form_of(schema).gbnf.count("g1.999") == 1


def test_a_text_with_quotes_and_controls_stays_what_it_is() -> None:
    assert rules({"enum": ['a"\\\n\u2028é']})["r0"] == '"\\"a\\\\\\"\\\\\\\\\\\\n\\u2028é\\""'


@pytest.mark.parametrize(
    "schema",
    [{}, [], None, {"type": "object"}, {"type": "array"}, {"type": "number"}, {"$ref": "#"}, {"anyOf": []}, {"enum": []}],
)
def test_a_schema_that_has_no_grammar_is_refused(schema: Any) -> None:
    with pytest.raises(NoGrammar):
        form_of(schema)
