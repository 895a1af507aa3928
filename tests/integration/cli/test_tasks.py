"""`list`, `show`, `result`, `cancel`, `retry` and `dlq`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli.agentctl import Agentctl, Gate

CHAIN = [
    {"id": "A", "input": {"argv": ["true"]}},
    {"id": "B", "input": {"argv": ["true"]}, "dependencies": ["A"]},
    {"id": "C", "input": {"argv": ["true"]}, "dependencies": ["B"]},
]


def chain(agentctl: Agentctl, gate: Gate) -> list[str]:
    """The ids of A, which stands before the gate, of B behind it, and C behind B."""
    held = {"id": "A", "input": {"argv": ["cat", "gate"]}, "workspace": str(gate.workspace)}
    return agentctl.submit("--file", "-", stdin=json.dumps([held, *CHAIN[1:]]).encode())


def state(agentctl: Agentctl, task: str) -> str:
    found: str = agentctl.document("show", task)["task"]["state"]
    return found


def test_a_list_comes_in_pages_newest_first(agentctl: Agentctl) -> None:
    ids = agentctl.submit("--file", "-", stdin=json.dumps(CHAIN).encode())
    graph = ids[0].partition(".")[0]
    first = agentctl("list", "--graph", graph, "--limit", "2")
    assert [line.split()[0] for line in first.out.splitlines()] == ["TASK", ids[2], ids[1]]
    assert first.err == f"2 of 3 tasks; more: the same with --after {ids[1]}\n"
    rest = agentctl("list", "--graph", graph, "--limit", "2", "--after", ids[1])
    assert [line.split()[0] for line in rest.out.splitlines()] == ["TASK", ids[0]]
    assert rest.err == ""
    page = agentctl.document("list", "--graph", graph, "--limit", "1")
    assert ([task["id"] for task in page["tasks"]], page["total"], page["next"]) == ([ids[2]], 3, ids[2])


def test_a_list_is_filtered_by_states(agentctl: Agentctl) -> None:
    graph = [{"id": "good", "input": {"argv": ["true"]}}, {"id": "bad", "input": {"argv": ["false"]}, "max_retries": 0}]
    ids = agentctl.submit("--file", "-", stdin=json.dumps(graph).encode())
    agentctl("wait", *ids)
    of_graph = ("list", "--graph", ids[0].partition(".")[0])
    assert [task["id"] for task in agentctl.document(*of_graph, "--state", "failed")["tasks"]] == [ids[1]]
    assert agentctl.document(*of_graph, "--state", "failed", "--state", "succeeded")["total"] == 2
    none = agentctl(*of_graph, "--state", "running")
    assert (none.code, none.out, none.err) == (0, "", "no tasks\n")
    assert agentctl.document(*of_graph, "--state", "running") == {"tasks": [], "total": 0, "next": ""}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--graph", "gnowhere"], 4, "graph: no graph is called `gnowhere`."),
        (["--limit", "0"], 2, "limit: must be from 1 to 1000."),
        (["--after", "gnowhere.t1"], 2, "after: names no task of this list."),
    ],
)
def test_a_list_that_cannot_be_made(agentctl: Agentctl, arguments: list[str], code: int, says: str) -> None:
    done = agentctl("list", *arguments)
    assert (done.code, done.out, says in done.err) == (code, "", True)


def test_show_tells_everything_about_a_task(agentctl: Agentctl) -> None:
    task = agentctl.ended("--retries", "1", "--", "sh", "-c", "echo no >&2; exit 3")
    done = agentctl("show", task)
    lines = done.out.splitlines()
    facts = {line[:14].strip(): line[14:] for line in lines if not line.startswith(" ")}
    assert done.code == 0
    assert lines[0] == f"{task}  dead"
    assert facts["agent"] == "command"
    assert facts["attempt"] == "2 of 2 at most"
    assert facts["why"].startswith("MAX_RETRIES gave up after 1 ")
    assert facts["log"].endswith(f"/logs/task_{task}.log")
    history = [line.split()[2:] for line in lines[lines.index("history") + 1 :]]
    assert [entry[0] for entry in history] == ["ready", "running", "backing_off", "ready", "running", "dead"]
    assert history[2][1:4] == ["attempt", "1", "WORKER_FAILED"]


def test_show_tells_what_a_task_waits_for_and_what_waits_for_it(agentctl: Agentctl, gate: Gate) -> None:
    first, second, third = chain(agentctl, gate)
    done = agentctl("show", second)
    assert f"depends on    {first} (running; runs on_success)" in done.out or f"{first} (ready; runs on_success)" in done.out
    assert f"needed by     {third}" in done.out
    assert f"waits for {first}" in agentctl("list", "--graph", first.partition(".")[0]).out
    gate.open()
    assert agentctl("wait", third).code == 0


@pytest.mark.parametrize("command", ["show", "logs", "result", "cancel", "retry", "wait"])
def test_a_task_that_is_not_there(agentctl: Agentctl, command: str) -> None:
    done = agentctl(command, "gnowhere")
    assert (done.code, done.out) == (4, "")
    assert done.err.endswith(": no task is called `gnowhere`. See: agentctl list\n")


def test_a_task_that_is_not_there_for_programs(agentctl: Agentctl) -> None:
    done = agentctl("show", "gnowhere", "--json")
    assert (done.code, done.out, json.loads(done.err)["code"]) == (4, "", "NOT_FOUND")


def test_the_beginning_of_an_id_will_do_if_only_one_fits(agentctl: Agentctl) -> None:
    ids = agentctl.submit("--file", "-", stdin=json.dumps(CHAIN).encode())
    agentctl("wait", *ids)
    graph = ids[0].partition(".")[0]
    assert agentctl.document("show", f"{graph}.A")["task"]["id"] == ids[0]
    several = agentctl("show", graph)
    assert (several.code, f"`{graph}` is a graph of 3 tasks" in several.err) == (2, True)
    ambiguous = agentctl("show", "g")
    assert (ambiguous.code, "`g` may be any of" in ambiguous.err) == (2, True)
    single = agentctl.ended("--", "true")
    assert agentctl.document("show", single[:-3])["task"]["id"] == single


def test_a_result_is_the_output_byte_for_byte(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "sh", "-c", r"printf 'a\033[31m\r\302\233'; printf 'e\n' >&2")
    assert agentctl.bytes("result", task) == (0, b"a\x1b[31m\r\xc2\x9b", b"e\n")
    reply = agentctl.document("result", task)
    assert reply["result"]["output"] == {"exit_code": 0, "stdout": "a\x1b[31m\r\x9b", "stderr": "e\n"}
    assert reply["path"].endswith(f"/results/task_{task}.json")


def test_a_result_of_a_task_that_failed_says_why(agentctl: Agentctl) -> None:
    task = agentctl.ended("--retries", "0", "--timeout", "200ms", "--", "sleep", "1000")
    done = agentctl("result", task)
    assert done.code == 1
    assert done.err.startswith("failed: TIMEOUT ")
    assert agentctl.document("result", task, code=1)["result"]["error"]["code"] == "TIMEOUT"


def test_a_task_that_has_not_ended_has_no_result(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task())
    done = agentctl("result", task)
    assert (done.code, done.out, "wait" in done.err) == (4, "", True)
    gate.open()
    assert agentctl("wait", task).code == 0
    assert agentctl("result", task).code == 0


def test_cancel_takes_all_that_depend_on_it(agentctl: Agentctl, gate: Gate) -> None:
    first, second, third = chain(agentctl, gate)
    done = agentctl("cancel", second, "--reason", "not needed")
    assert (done.code, done.out.splitlines(), done.err) == (0, [second, third], "2 tasks cancelled\n")
    assert "not needed" in agentctl("show", second).out
    again = agentctl("cancel", second)
    assert (again.code, again.out, again.err) == (0, "", "nothing to cancel: it had ended before\n")
    gate.open()
    assert agentctl("wait", first).code == 0


def test_cancel_only_leaves_the_rest_to_the_edges(agentctl: Agentctl, gate: Gate) -> None:
    cleanup = {"id": "Z", "input": {"argv": ["true"]}, "dependencies": [{"task": "A", "when": "always"}]}
    held = {"id": "A", "input": {"argv": ["cat", "gate"]}, "workspace": str(gate.workspace)}
    first, last = agentctl.submit("--file", "-", stdin=json.dumps([held, cleanup]).encode())
    assert agentctl.document("cancel", first, "--only") == {"cancelled": [first], "count": 1}
    assert agentctl("wait", last).code == 0
    assert state(agentctl, first) == "cancelled"


def test_cancel_of_a_graph(agentctl: Agentctl, gate: Gate) -> None:
    ids = chain(agentctl, gate)
    assert agentctl("cancel", ids[0].partition(".")[0]).out.splitlines() == ids
    assert agentctl("wait", *ids).code == 1
    assert agentctl("result", ids[0]).code == 1


def test_retry_runs_it_again_with_what_failed_because_of_it(agentctl: Agentctl, gate: Gate) -> None:
    work = {"workspace": str(gate.workspace), "max_retries": 0}
    graph = [{"id": "A", "input": {"argv": ["cat", "there"]}, **work}, CHAIN[1]]
    ids = agentctl.submit("--file", "-", stdin=json.dumps(graph).encode())
    assert agentctl("wait", *ids).code == 1
    assert "DEPENDENCY_FAILED" in agentctl("list", "--graph", ids[0].partition(".")[0]).out
    (gate.workspace / "there").write_text("now")
    done = agentctl("retry", ids[0])
    assert (done.code, done.out.splitlines(), done.err) == (0, ids, "2 tasks will run again\n")
    assert agentctl("wait", *ids).code == 0
    assert agentctl("result", ids[0]).out == "now"
    nothing = agentctl("retry", ids[0])
    assert (nothing.code, "nothing to retry" in nothing.err) == (2, True)


def test_retry_as_json(agentctl: Agentctl) -> None:
    task = agentctl.ended("--retries", "0", "--", "false")
    assert agentctl.document("retry", task) == {"tasks": [task], "count": 1}


def test_dead_letters_are_shown_run_again_and_dropped(agentctl: Agentctl) -> None:
    agentctl("dlq", "drop", "--all")
    undo = {"input": {"argv": ["test", "-e", "way"]}, "max_retries": 0}
    file = {
        "tasks": [
            {"id": "a", "input": {"argv": ["echo", "booked"]}, "workspace": str(agentctl.directory), "compensate": undo},
            {"id": "b", "input": {"argv": ["false"]}, "max_retries": 1, "backoff_s": 0.05, "dependencies": ["a"]},
        ]
    }
    a, b = agentctl.submit("--file", "-", stdin=json.dumps(file).encode())
    undoing = f"u{a}"
    assert agentctl("wait", a.partition(".")[0]).code == 1
    assert agentctl("wait", undoing).code == 1
    listed = agentctl("dlq", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["TASK", undoing, b]
    assert f"{a} is not undone: the command exited with code 1" in listed[1]
    assert "2 dead letters: agentctl dlq list" in agentctl("status").out
    assert agentctl.document("status")["letters"] == 2
    document = agentctl.document("dlq", "show", undoing)
    assert (document["letter"]["undoes"], document["undone"]["task"]["id"]) == (a, a)
    assert json.loads(Path(document["undone"]["result_path"]).read_text())["output"]["stdout"] == "booked\n"
    shown = agentctl("dlq", "show", undoing).out
    assert f"undoes  {a}: what it did still stands" in shown
    assert f"agentctl dlq requeue {undoing}" in shown

    assert agentctl("dlq", "show", a).code == 4
    refused = agentctl("dlq", "requeue", b)
    assert (refused.code, refused.out) == (1, "")
    assert f"{b} stays: task {b} is of a graph that failed" in refused.err
    (agentctl.directory / "way").touch()
    assert agentctl("dlq", "requeue", undoing).out.split() == [undoing]
    assert agentctl("wait", undoing).code == 0
    assert agentctl.document("dlq", "drop", "--all", "--reason", "it is known") == {"tasks": [b], "count": 1}
    assert agentctl("dlq", "list").err == "no dead letters\n"
    assert agentctl.document("show", b)["history"][-1]["message"].endswith(": it is known")
    assert agentctl("dlq", "drop", b).code == 4
    assert agentctl("dlq", "drop").code == 2
