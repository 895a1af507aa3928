"""What reaches a terminal, and what does not; what happens where there is none."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import unicodedata

import pytest

from tests.integration.cli.agentctl import CTRL_C, PROGRAM, Agentctl, Gate, read_until
from tests.support.daemon import DaemonProcess

EVIL = r"printf 'a\033[2J\033]0;owned\007b\r\302\233m\342\200\256c\n'"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07b\x0d\x9bm\u202ec"
OUR_OWN = re.compile(r"\x1b\[[0-9;]*m|\r\x1b\[K")
"""Colours, and the line that is written over."""


def harmful(text: str) -> set[str]:
    """Control characters that agentctl did not mean."""
    return {
        character for character in OUR_OWN.sub("", text) if unicodedata.category(character) in ("Cc", "Cf") and character != "\n"
    }


@pytest.fixture(scope="module")
def evil(supervisor: DaemonProcess) -> str:
    """A task that has written what it should not, and failed with it."""
    agentctl = Agentctl(supervisor.socket, supervisor.directory)
    return agentctl.ended("--retries", "0", "--", "sh", "-c", f"{EVIL}; {EVIL} >&2; exit 1")


@pytest.fixture(scope="module")
def long(supervisor: DaemonProcess) -> str:
    """A task with more output than a pipe holds."""
    return Agentctl(supervisor.socket, supervisor.directory).ended("--", "seq", "1", "100000")


@pytest.mark.parametrize("command", ["result", "logs", "show", "wait", "list", "status"])
def test_control_characters_of_a_worker_never_reach_a_terminal(agentctl: Agentctl, evil: str, command: str) -> None:
    arguments = {"list": ["--graph", evil.partition(".")[0]], "status": []}.get(command, [evil])
    _, text = agentctl.terminal(command, *arguments, columns=400).finish()
    assert not harmful(text)
    if command in ("result", "logs"):
        assert SHOWN in text


@pytest.mark.parametrize(
    "arguments", [["logs", "-f"], ["events", "--graph"], ["show", "--json"], ["result", "--json"], ["logs", "--json"]]
)
def test_nor_by_other_ways(agentctl: Agentctl, evil: str, arguments: list[str]) -> None:
    assert not harmful(agentctl.terminal(*arguments, evil).finish()[1])


@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_nor_from_a_submit(agentctl: Agentctl, how: str) -> None:
    code, text = agentctl.terminal("submit", how, "--", "sh", "-c", EVIL).finish()
    assert (code, harmful(text), SHOWN in text) == (0, set(), True)


def test_nor_by_names_that_a_user_gives(agentctl: Agentctl) -> None:
    for arguments in (["show", "g\x1b[2J"], ["--socket", "/nowhere\x1b[2J", "status"], ["submit", "--file", "\x1b[2J"]):
        code, text = agentctl.terminal(*arguments).finish()
        assert code in (2, 3, 4)
        assert (harmful(text), r"\x1b[2J" in text) == (set(), True)


def test_a_log_shows_bytes_that_are_not_utf_8(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "sh", "-c", r"printf 'a\233[2J\377\n'")
    assert r"a\x9b[2J\xff" in agentctl.terminal("logs", task).finish()[1]


def test_raw_is_what_it_says(agentctl: Agentctl, evil: str) -> None:
    assert "\x1b[2J\x1b]0;owned\x07" in agentctl.terminal("logs", "--raw", evil).finish()[1]


def test_a_terminal_has_colours(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "true")
    assert "\x1b[32msucceeded\x1b[0m" in agentctl.terminal("show", task).finish()[1]
    assert "\x1b[31magentctl:\x1b[0m" in agentctl.terminal("show", "gnowhere").finish()[1]
    assert "\x1b" not in agentctl.terminal("show", task, "--no-color").finish()[1]
    assert "\x1b" not in agentctl.terminal("--no-color", "show", "gnowhere").finish()[1]
    assert "\x1b" not in agentctl.terminal("show", task, NO_COLOR="1").finish()[1]
    assert "\x1b" not in agentctl.terminal("show", task, TERM="dumb").finish()[1]
    assert "\x1b" in agentctl.terminal("show", task, NO_COLOR="").finish()[1], "no-color.org: only if it is not empty"


def test_without_a_terminal_there_are_none(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "true")
    for arguments in (["show", task], ["list"], ["status"], ["events", "--graph", task], ["show", "gnowhere"], ["wait", task]):
        done = agentctl(*arguments)
        assert "\x1b" not in done.out + done.err


def test_rows_of_a_table_end_at_the_edge_and_other_lines_are_whole(agentctl: Agentctl) -> None:
    task = agentctl.ended("--retries", "0", "--", "sh", "-c", "echo 日本語日本語日本語日本語日本語日本語日本語 >&2; exit 1")
    _, table = agentctl.terminal("list", "--graph", task.partition(".")[0], "--no-color", columns=70).finish()
    widths = [sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line) for line in table.splitlines()]
    assert max(widths) in (69, 70)
    assert table.splitlines()[1].endswith("…")
    _, shown = agentctl.terminal("show", task, "--no-color", columns=40).finish()
    assert f"/results/task_{task}.json" in shown


def test_a_wait_shows_how_far_it_is_on_one_line(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task())
    terminal = agentctl.terminal("wait", task, "--no-color")
    terminal.read_until("0 of 1 ended, 1 running")
    gate.open()
    code, text = terminal.finish()
    assert code == 0
    *progress, table = text.split("\r\x1b[K")
    assert all("\n" not in line for line in progress)
    assert table.splitlines()[1].split()[:2] == [task, "succeeded"]


def test_a_dumb_terminal_is_not_asked_to_erase(agentctl: Agentctl) -> None:
    code, text = agentctl.terminal("submit", "--wait", "--", "echo", "hi", TERM="dumb").finish()
    assert (code, text.splitlines()[1:], "\x1b" in text) == (0, ["hi"], False)


@pytest.mark.parametrize("follow", [["logs", "-f"], ["logs", "-f", "--raw"]])
def test_ctrl_c_leaves_no_half_line(agentctl: Agentctl, gate: Gate, follow: list[str]) -> None:
    (task,) = agentctl.submit(*gate.task(before="printf 'no line feed'"))
    terminal = agentctl.terminal(*follow, task)
    terminal.read_until("no line feed")
    terminal.type(CTRL_C)
    code, text = terminal.finish()
    assert code == 130
    assert text.endswith("no line feed^C\n")
    gate.open()
    assert agentctl("wait", task).code == 0, "the task goes on"


def test_ctrl_c_ends_a_wait_and_its_line_of_progress(agentctl: Agentctl, gate: Gate) -> None:
    terminal = agentctl.terminal("submit", "--wait", *gate.task())
    terminal.read_until("0 of 1 ended, 1 running")
    terminal.type(CTRL_C)
    code, text = terminal.finish()
    graph = text.split()[1].partition(".")[0]
    assert code == 130
    assert text.endswith(f"\r\x1b[Kleft alone, it goes on: agentctl wait {graph}\n")
    gate.open()
    assert agentctl("wait", graph).code == 0


def test_a_log_without_a_line_feed_at_its_end_gets_one_on_a_terminal_only(agentctl: Agentctl) -> None:
    done = agentctl("submit", "--wait", "--", "printf", "x")
    assert done.out == "x"
    assert agentctl.terminal("submit", "--wait", "--", "printf", "x").finish()[1].endswith("\nx\n")


def shell(agentctl: Agentctl, script: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell; the exit code is that of agentctl in it."""
    command = ["bash", "-c", f'set -o pipefail; agentctl() {{ "{PROGRAM}" "$@"; }}; {script}']
    return subprocess.run(command, env=agentctl.environment, cwd=agentctl.directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "line",
    [
        "agentctl --help | true",
        "agentctl submit --help | true",
        "agentctl list --limit 1000 | true",
        "agentctl logs TASK | head -1",
        "agentctl logs -f TASK | head -1",
        "agentctl logs --json TASK | head -c 1",
        "agentctl result TASK | head -1",
        "agentctl events --json | head -1",
    ],
)
def test_a_reader_that_goes_away_is_not_a_failure_to_talk_about(agentctl: Agentctl, long: str, line: str) -> None:
    done = shell(agentctl, line.replace("TASK", long))
    assert done.stderr == ""
    assert done.returncode in (0, 141), "0 if all was written before the reader went"


def test_the_exit_code_of_a_broken_pipe(agentctl: Agentctl) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    for arguments in (["list"], ["--help"], ["status", "--json"], ["submit", "--wait", "--", "echo", "x"]):
        with agentctl.start(*arguments, stdout=theirs) as process:
            _, err = process.communicate()
        assert (process.returncode, b"Error" in err) == (141, False)
    os.close(theirs)


def test_followed_events_end_when_their_reader_goes_away(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task())
    with agentctl.start("events", "-f", "--graph", task, "--after", "0.1") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        gate.open()
        assert process.wait() == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("line", ["agentctl --help >/dev/full", "agentctl list >/dev/full", "agentctl status >/dev/full"])
def test_a_full_disk_behind_standard_output_is_told(agentctl: Agentctl, line: str) -> None:
    done = shell(agentctl, line)
    assert (done.returncode, done.stderr) == (6, "agentctl: standard output: No space left on device.\n")


def test_a_full_disk_is_told_to_programs(agentctl: Agentctl) -> None:
    done = shell(agentctl, "agentctl list --json >/dev/full")
    assert (done.returncode, json.loads(done.stderr)["code"]) == (6, "DISK_FULL")


def test_streams_may_be_closed(agentctl: Agentctl) -> None:
    assert shell(agentctl, "agentctl status >&-").returncode == 0
    assert shell(agentctl, "agentctl status 2>&-").returncode == 0
    assert shell(agentctl, "agentctl show gnowhere >&- 2>&-").returncode == 4
    assert shell(agentctl, "agentctl submit --wait -- echo hi <&-").stdout == "hi\n"


def test_a_signal_to_a_wait_in_a_pipe_says_nothing_and_gives_130(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task(before="echo on"))
    with agentctl.start("logs", "-f", task) as process:
        read_until(process, b"on\n")
        process.send_signal(signal.SIGINT)
        assert process.communicate() == (b"", b"")
    assert process.returncode == 130
    gate.open()
