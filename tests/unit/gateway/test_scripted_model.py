"""The test double for model endpoints does what its docstring says."""

from __future__ import annotations

import json

from tests.support.scripted_model import Call, Script, Turn, answer, parse, smallest


def a_turn(prompt: str, *results: str, tools: tuple[str, ...] = ("write", "wait", "delegate")) -> Turn:
    turn = Turn(tools=frozenset(tools))
    turn.user(prompt)
    for result in results:
        turn.result(result)
    return turn


def test_a_plain_prompt_gets_the_canned_answer() -> None:
    assert answer(a_turn("hello"), "canned") == "canned"


def test_say_is_answered_up_to_the_end_of_the_line() -> None:
    assert answer(a_turn("context\nSAY:good day\nmore"), "canned") == "good day"


def test_calls_follow_one_another_and_the_last_result_is_told() -> None:
    prompt = 'CALL:write:{"path": "a"}\nCALL:wait:{"for": 1}'
    assert answer(a_turn(prompt), "") == Call("write", {"path": "a"})
    assert answer(a_turn(prompt, "written"), "") == Call("wait", {"for": 1})
    assert answer(a_turn(prompt, "written", "x" * 400), "") == "done: " + "x" * 300


def test_say_after_calls_is_the_last_word() -> None:
    assert answer(a_turn('CALL:write:{"path": "a"}\nSAY:{{last:status}} it is', '{"status": "ready"}'), "") == "ready it is"


def test_a_placeholder_takes_the_value_of_a_key_with_its_type() -> None:
    prompt = 'CALL:delegate:{}\nCALL:wait:{"ids": "{{last:tasks}}", "text": "of {{1:graph}}", "part": "{{last/g-(.)/}}"}'
    result = json.dumps({"graph": "g-7", "tasks": ["g-7.t1"]})
    assert answer(a_turn(prompt, result), "") == Call("wait", {"ids": ["g-7.t1"], "text": "of g-7", "part": "7"})


def test_a_placeholder_looks_into_escaped_json() -> None:
    result = json.dumps({"text": json.dumps({"graph": "g-7", "tasks": ["a"]})})
    assert answer(a_turn('CALL:wait:{}\nCALL:wait:{"id": "{{last:tasks}}"}', result), "") == Call("wait", {"id": ["a"]})


def test_directives_inside_the_arguments_belong_to_whoever_gets_them() -> None:
    inner = 'CALL:write:{"path": "a"} SAY:inner'
    script = parse("CALL:delegate:" + json.dumps({"prompt": inner}))
    assert script == Script((Call("delegate", {"prompt": inner}),))


def test_a_prompt_handed_on_inside_quotes_is_understood() -> None:
    prompt = 'CALL:write:{"a": "b \\" c"} CALL:wait:{}'
    assert parse(json.dumps(prompt)) == parse(prompt)


def test_no_tool_is_called_that_was_not_offered() -> None:
    assert answer(a_turn("CALL:rm:{}"), "canned") == "no such tool: rm; on offer: delegate, wait, write"
    assert answer(a_turn("CALL:write:{}", tools=()), "canned") == "canned"


def test_a_later_user_message_without_a_directive_keeps_the_script() -> None:
    turn = a_turn("CALL:write:{}", "written")
    turn.user("please continue")
    assert answer(turn, "") == "done: written"


def test_json_requests_get_the_smallest_object_that_fits() -> None:
    properties = {
        "reasoning": {"type": "STRING"},
        "model_choice": {"type": "STRING", "enum": ["flash", "pro"]},
        "score": {"type": "INTEGER"},
        "confidence": {"type": "number"},
        "extra": {"type": "string"},
    }
    schema = {"type": "OBJECT", "properties": properties, "required": ["reasoning", "model_choice", "score", "confidence"]}
    assert smallest(schema) == {"reasoning": "scripted", "model_choice": "flash", "score": 1, "confidence": 0}
