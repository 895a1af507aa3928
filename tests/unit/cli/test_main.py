"""agentctl in this process: what it refuses by itself, and how it tells that something broke."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisord_agents.cli import configuration, main
from supervisord_agents.cli.exits import Exit


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "agentctl: there is nothing to do. Give a command behind `--`, or --prompt, --input or --file.\n"),
        (["--prompt", "write a test"], "--agent: is missing"),
        (["--agent", "python", "--input", "[1]"], "--input: must be a JSON object."),
        (["--agent", "python", "--input", "{"], "--input: is not valid JSON"),
        (["--agent", "python", "--input", "{}", "--env", "A=b"], "--env: is only for a command."),
        (["--agent", "python", "--input", "{}", "--stdin", "-"], "--stdin: is only for a command."),
        (["--file", "-", "--priority", "1"], "--priority: does not go with --file"),
        (["--file", "-", "--depends-on", "g1.a"], "--depends-on: does not go with --file"),
        (["--file", "-", "--", "true"], "ARGV: does not go with --file"),
        (["--file", "nowhere.json"], "nowhere.json: cannot be read: No such file"),
        (["--stdin", "nowhere.txt", "--", "cat"], "nowhere.txt: cannot be read"),
        (["--priority", "high", "--", "true"], "is not a whole number"),
        (["--timeout", "soon", "--", "true"], "`soon` is not a duration"),
        (["ls", "-l"], "unknown arguments: -l. Put `--` before the program"),
    ],
)
def test_a_submit_that_cannot_be_used_is_refused_without_asking_a_supervisor(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main.main(["--socket", str(tmp_path / "nowhere.sock"), "submit", *arguments])
    shown = capsys.readouterr()
    assert (code, shown.out) == (Exit.USAGE, "")
    assert says in shown.err
    assert shown.err.count("\n") == 1


def test_a_command_line_that_is_not_understood_is_an_object_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["list", "--nope", "--json"]) is Exit.USAGE
    assert json.loads(capsys.readouterr().err)["message"] == "unknown arguments: --nope."
    assert main.main(["list", "--nope", "--", "--json"]) is Exit.USAGE
    assert capsys.readouterr().err.startswith("agentctl: "), "behind `--` it belongs to a task"


def test_a_mistake_of_agentctl_is_one_line_that_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Exit:
        raise KeyError("oops")

    monkeypatch.setattr(configuration, "show", broken)
    assert main.main(["config", "show"]) is Exit.FAILED
    assert capsys.readouterr().err == (
        "agentctl: unexpected KeyError: 'oops'. This is a mistake in agentctl; AGENTCTL_TRACEBACK=1 shows where.\n"
    )
    monkeypatch.setenv(main.TRACEBACK_ENV, "1")
    with pytest.raises(KeyError):
        main.main(["config", "show"])
