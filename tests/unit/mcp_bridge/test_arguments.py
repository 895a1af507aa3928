"""Faults of arguments are told in the tool's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from supervisord_agents.mcp_bridge.arguments import FAULTS_SHOWN, refusal
from supervisord_agents.mcp_bridge.schema import lean


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""
    count: Annotated[int, Field(ge=0, le=9)] = 0
    seconds: float = 0.0
    extra: dict[str, Any] = {}


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: list[Part]
    mode: Literal["all", "any"] = "all"


def said(**arguments: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Arguments.model_validate(arguments)
    return refusal(caught.value, lean(Arguments.model_json_schema()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "parts: is missing."),
        ({"parts": "x"}, "parts: must be a list."),
        ({"parts": [{}, 5]}, "parts[1]: must be an object."),
        ({"parts": [{"name": 5}]}, "parts[0].name: must be a string."),
        ({"parts": [{"count": "x"}]}, "parts[0].count: must be a whole number."),
        ({"parts": [{"count": 1.5}]}, "parts[0].count: must be a whole number."),
        ({"parts": [{"count": None}]}, "parts[0].count: must be a whole number."),
        ({"parts": [{"count": -1}]}, "parts[0].count: must be at least 0."),
        ({"parts": [{"count": 10}]}, "parts[0].count: must be at most 9."),
        ({"parts": [{"seconds": "x"}]}, "parts[0].seconds: must be a number."),
        ({"parts": [{"seconds": []}]}, "parts[0].seconds: must be a number."),
        ({"parts": [{"extra": []}]}, "parts[0].extra: must be an object."),
        ({"parts": [], "mode": "some"}, "mode: must be 'all' or 'any'."),
        ({"parts": [], "odd": 1}, "odd: there is no such field. Known: parts, mode."),
        ({"parts": [{"nam": ""}]}, "parts[0].nam: there is no such field. Known: name, count, seconds, extra."),
        ({"parts": [{"name": 1, "count": 10}]}, "parts[0].name: must be a string. parts[0].count: must be at most 9."),
    ],
)
def test_a_fault_names_the_field_and_what_it_must_be(arguments: dict[str, Any], words: str) -> None:
    assert said(**arguments) == words


def test_of_many_faults_the_first_are_told() -> None:
    text = said(parts=[{"name": 1}] * 1_000)
    assert text.count("must be a string") == FAULTS_SHOWN
    assert text.endswith("995 more faults are not shown.")


def test_a_long_name_is_shortened() -> None:
    assert len(said(parts=[], **{"x" * 10_000: 1})) < 300
