"""`submit`: from the command line, from files, waited for and followed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.cli.agentctl import Agentctl, Gate, read_until
from tests.support.daemon import DaemonProcess

ECHO = "supervisord_agents.workers.builtin:echo"


def shown(agentctl: Agentctl, task: str) -> Any:
    return agentctl.document("show", task)


def test_a_command_is_submitted_with_everything_the_options_say(agentctl: Agentctl) -> None:
    (agentctl.directory / "in.txt").write_text("süß\n")
    (agentctl.directory / "work").mkdir()
    (before,) = agentctl.submit("--", "true")
    options = ["--id", "one", "--type", "survey", "--priority", "0", "--timeout", "2m", "--deadline", "1h", "--retries", "0"]
    options += ["--workspace", "work", "--pool", "critical", "--depends-on", before, "--env", "A=b=c", "--stdin", "in.txt"]
    (task,) = agentctl.submit(*options, "--", "grep", "--", "-x", "--json")
    spec = shown(agentctl, task)["spec"]
    assert task.endswith(".one")
    assert spec["input"] == {"argv": ["grep", "--", "-x", "--json"], "env": {"A": "b=c"}, "stdin": "süß\n"}
    assert (spec["type"], spec["priority"], spec["max_retries"]) == ("survey", 0, 0)
    assert (spec["timeout_s"], spec["deadline_s"]) == (120.0, 3600.0)
    assert (spec["workspace"], spec["pool"]) == (str(agentctl.directory / "work"), "critical")
    assert shown(agentctl, task)["dependencies"].keys() == {before}


def test_standard_input_and_variables_reach_the_command(agentctl: Agentctl) -> None:
    done = agentctl(
        "submit", "--wait", "--env", "WHO=me", "--stdin", "-", "--", "sh", "-c", 'echo "$WHO"; cat', stdin="süß".encode()
    )
    assert (done.code, done.out) == (0, "me\nsüß")


def test_a_function_is_submitted_by_its_input(agentctl: Agentctl) -> None:
    given = json.dumps({"function": ECHO, "args": [[1, "zwei"]]})
    done = agentctl("submit", "--agent", "python", "--input", given, "--wait")
    assert (done.code, json.loads(done.out)) == (0, [1, "zwei"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--priority", "10", "--", "true"], "priority"),
        (["--priority", "9" * 30, "--", "true"], "agentctl: "),
        (["--id", "no dots.", "--", "true"], "tasks[0].id: "),
        (["--depends-on", "gnowhere.t1", "--", "true"], "tasks[0].dependencies[0]: "),
        (["--workspace", "nowhere", "--", "true"], "tasks[0].workspace"),
        (["--pool", "none", "--", "true"], "tasks[0].pool"),
        (["--agent", "nobody", "--input", "{}"], "tasks[0].agent"),
    ],
)
def test_what_the_supervisor_cannot_use_is_refused_in_one_line_that_names_it(
    agentctl: Agentctl, arguments: list[str], says: str
) -> None:
    done = agentctl("submit", *arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1


def test_nothing_of_what_was_refused_is_there(agentctl: Agentctl) -> None:
    before = agentctl.document("list")["total"]
    agentctl("submit", "--file", "-", stdin=b'[{"id": "A", "input": {"argv": ["true"]}}, {"id": "B", "agent": "nobody"}]')
    agentctl("submit", "--file", "-", stdin=b'[{"id": "A", "dependencies": ["B"]}, {"id": "B", "dependencies": ["A"]}]')
    assert agentctl.document("list")["total"] == before


def test_a_refusal_is_an_object_for_programs(agentctl: Agentctl) -> None:
    done = agentctl("submit", "--agent", "nobody", "--json", "--", "true")
    assert (done.code, done.out) == (2, "")
    error = json.loads(done.err)
    assert (error["code"], error["field"]) == ("INVALID", "tasks[0].agent")
    assert set(error) == {"code", "message", "field", "kept", "hint"}


TASKS = [{"id": "A", "input": {"argv": ["true"]}, "workspace": "here"}, {"id": "B", "agent": "python", "dependencies": ["A"]}]


def test_a_graph_from_a_json_file_with_its_key(agentctl: Agentctl) -> None:
    (agentctl.directory / "here").mkdir()
    tasks = [TASKS[0], {**TASKS[1], "input": {"function": ECHO, "args": [1]}}]
    (agentctl.directory / "graph.json").write_text(json.dumps({"tasks": tasks, "key": "from the file"}))
    ids = agentctl.submit("--file", "graph.json")
    assert [task.partition(".")[2] for task in ids] == ["A", "B"]
    assert shown(agentctl, ids[0])["spec"]["workspace"] == str(agentctl.directory / "here")
    again = agentctl("submit", "--file", "graph.json")
    assert (again.out.splitlines(), "this key was seen before" in again.err) == (ids, True)
    other = agentctl.document("submit", "--file", "graph.json", "--key", "from the command line")
    assert (other["tasks"] == ids, other["duplicate"]) == (False, False)
    assert agentctl.document("submit", "--key", "from the file", "--", "true")["duplicate"]


def test_a_graph_from_standard_input_as_json_and_toml(agentctl: Agentctl) -> None:
    toml = b'[[tasks]]\nid = "A"\ninput.argv = ["true"]\n[[tasks]]\nid = "B"\ninput.argv = ["true"]\ndependencies = ["A"]\n'
    ids = agentctl.submit("--file", "-", stdin=toml)
    assert shown(agentctl, ids[1])["dependencies"].keys() == {ids[0]}
    assert len(agentctl.submit("--file", "-", stdin=b'[{"input": {"argv": ["true"]}}]')) == 1


def test_a_key_outlives_the_supervisor(agentctl: Agentctl, supervisor: DaemonProcess) -> None:
    first = agentctl.submit("--key", "once", "--", "true")
    supervisor.kill()
    asyncio.run(supervisor.start())
    again = agentctl("submit", "--wait", "--key", "once", "--", "false")
    assert (again.code, again.err.splitlines()[-1]) == (0, f"submitted {first[0]}")


def test_wait_prints_the_output_of_the_task_where_it_belongs(agentctl: Agentctl) -> None:
    script = r"printf 'out\033[2J'; echo err >&2; exit 2"
    done = agentctl("submit", "--retries", "0", "--wait", "--", "sh", "-c", script)
    assert (done.code, done.out) == (1, "out\x1b[2J")
    submitted, written, why = done.err.splitlines()
    assert (submitted.split()[0], written) == ("submitted", "err")
    assert "WORKER_FAILED the command exited with code 2" in why


def test_wait_for_a_graph_gives_its_table(agentctl: Agentctl) -> None:
    graph = b'[{"id": "A", "input": {"argv": ["true"]}}, {"id": "B", "input": {"argv": ["false"]}, "max_retries": 0}]'
    done = agentctl("submit", "--file", "-", "--wait", stdin=graph)
    head, first, second = done.out.splitlines()
    assert done.code == 1
    assert head.split() == ["TASK", "STATE", "AGENT", "TRY", "TIME", "REMARK"]
    assert (first.split()[1], second.split()[1]) == ("succeeded", "failed")


def test_wait_as_json_is_the_reply_of_the_wait(agentctl: Agentctl) -> None:
    reply = agentctl.document("submit", "--wait", "--", "true")
    assert (reply["done"], [task["state"] for task in reply["tasks"]]) == (True, ["succeeded"])
    assert reply["tasks"][0]["retry_at"] == 0.0, "fields at their default are there too"


def test_follow_prints_the_log_while_the_task_runs(agentctl: Agentctl, gate: Gate) -> None:
    with agentctl.start("submit", "--follow", *gate.task(before="echo one", after=r"printf 'two\377\n'")) as process:
        read_until(process, b"one\n")
        gate.open()
        out, err = process.communicate()
    assert process.returncode == 0
    assert b"two\xff\n" in out
    assert [line.split()[0] for line in err.decode().splitlines()] == ["submitted", "succeeded"]


def test_follow_of_a_graph_names_the_task_of_each_line_at_once(agentctl: Agentctl, gate: Gate) -> None:
    held = {"input": {"argv": ["sh", "-c", "echo one; printf two; cat gate"]}, "workspace": str(gate.workspace)}
    graph = [{"id": "A", **held}, {"id": "B", "input": {"argv": ["true"]}, "dependencies": ["A"]}]
    (agentctl.directory / "graph.json").write_text(json.dumps(graph))
    with agentctl.start("submit", "--file", "graph.json", "--follow") as process:
        read_until(process, b"A | one\n")
        gate.open()
        out, _ = process.communicate()
    assert process.returncode == 0
    lines = out.decode().splitlines()
    assert any(line.startswith("A | two") for line in lines)
    assert [line.split()[1] for line in lines[-2:]] == ["succeeded", "succeeded"]


def test_follow_as_json_is_the_submit_the_log_and_the_wait(agentctl: Agentctl) -> None:
    first, *pieces, last = agentctl.documents("submit", "--follow", "--", "echo", "x")
    assert set(first) == {"graph", "tasks", "duplicate"}
    assert {piece["task"] for piece in pieces} == set(first["tasks"])
    assert pieces[-1]["ended"]
    assert last["done"]
