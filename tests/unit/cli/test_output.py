"""What programs get: one line, every field, nothing that a terminal obeys."""

from __future__ import annotations

import json

import msgspec
import pytest

from supervisord_agents.cli import results
from supervisord_agents.cli.output import Output, json_line
from supervisord_agents.cli.render import Span, Style
from supervisord_agents.core.model import Failure, Result
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.messages import Item, WaitReply


def test_fields_at_their_default_are_there_too() -> None:
    item = json.loads(json_line(Item(kind="state", token="3.1", at=1.0)))
    assert set(item) == set(Item.__struct_fields__)
    assert json.loads(json_line([{"reply": WaitReply(done=True, tasks=[])}])) == [{"reply": {"done": True, "tasks": []}}]


def test_bytes_are_base64_and_lines_are_escaped() -> None:
    line = json_line({"data": b"\x1b\xff", "text": "a\nb\x1b[2J\u202e\u2028"})
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {"data": "G/8=", "text": "a\nb\x1b[2J\u202e\u2028"}


def test_numbers_that_json_lacks_do_not_break_it() -> None:
    assert json.loads(json_line({"value": float("nan")})) == {"value": None}


def test_an_error_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(InvalidInput("two\nlines \x1b[2J.", field="a.b", hint="Do it."))
    assert capsys.readouterr().err == "agentctl: a.b: two\\x0alines \\x1b[2J. Do it.\n"


def test_an_error_for_programs_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).error(InvalidInput("no.", field="a.b"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert json.loads(shown.err) == {"code": "INVALID", "message": "no.", "field": "a.b", "kept": "", "hint": ""}


def test_notes_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).note("beside")
    assert capsys.readouterr().err == ""


def test_no_colour_and_no_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.line(Span("bad", Style.BAD))
    output.table([[Span("x" * 500, Style.GOOD)]])
    output.progress("half")
    shown = capsys.readouterr()
    assert shown.out == "bad\n" + "x" * 500 + "\n"
    assert shown.err == ""


OUTPUTS = [
    ("text", "text", ""),
    ({"text": "text\n"}, "text\n", ""),
    ({"exit_code": 1, "stdout": "out\x1b", "stderr": "err"}, "out\x1b", "err\n"),
    (None, "", ""),
    ({"text": 3}, '{\n  "text": 3\n}\n', ""),
    ([1], "[\n  1\n]\n", ""),
]


@pytest.mark.parametrize(("output", "out", "err"), OUTPUTS)
def test_the_output_of_a_task_goes_where_it_belongs(
    output: object, out: str, err: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    results.print_result(Output(), Result(task_id="g1.A", status="succeeded", output=output))
    shown = capsysbinary.readouterr()
    assert (shown.out.decode(), shown.err.decode()) == (out, err)


def test_beside_an_output_stands_why_there_is_no_more_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(code="TIMEOUT", message="too long.", hint="Give it more.")
    result = Result(task_id="g1.A", status="failed", output="x", error=failure)
    results.print_result(Output(), msgspec.structs.replace(result, truncated=True))
    shown = capsys.readouterr()
    assert shown.out == "x"
    assert "was cut at the configured size" in shown.err
    assert "failed: TIMEOUT too long. Give it more." in shown.err
