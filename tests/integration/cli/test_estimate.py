"""`estimate`, before anything is known and after tasks ran."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cli.agentctl import Agentctl


def test_what_is_learnt_of_tasks_is_told_and_used(agentctl: Agentctl) -> None:
    nap = ("--type", "nap", "--", "sleep", "0.3")
    before = agentctl("estimate", *nap)
    assert (before.code, before.err) == (0, "")
    assert before.out.startswith("delegate: nothing is known of how long it takes; a worker is free for it\n")
    graph = Path(agentctl.directory, "naps.json")
    graph.write_text(json.dumps([{"type": "nap", "input": {"argv": ["sleep", "0.3"]}}] * 6))
    ids = agentctl("submit", "--file", str(graph)).out.split()
    assert agentctl("wait", *ids).code == 0
    (task,) = agentctl.document("estimate", *nap)["tasks"]
    assert (task["method"], task["observations"]) in (("average", 6), ("regression", 6))
    assert 0.3 <= task["low_s"] <= task["seconds"] <= task["high_s"] < 60
    assert task["overhead_s"] != 0.5  # it has been measured
    assert task["reason"].startswith("it takes about")
    shown = agentctl("estimate", *nap).out
    assert "by the moving average, off by" in shown
    assert "6 tasks of the kind seen" in shown
    (later,) = agentctl("submit", *nap).out.split()
    spec = agentctl.document("show", later)["spec"]
    assert 0.3 <= spec["estimate_s"] < 60
    assert spec["timeout_s"] == 600.0


def test_a_graph_is_estimated_by_its_longest_chain(agentctl: Agentctl) -> None:
    graph = [
        {"id": "a", "type": "test", "input": {"argv": ["make"]}},
        {"id": "b", "type": "code_review", "input": {"argv": ["review"]}, "dependencies": ["a"]},
        {"id": "c", "input": {"argv": ["true"]}, "estimate_s": 20, "dependencies": ["a"]},
    ]
    reply = agentctl.document("estimate", "--file", "-", stdin=json.dumps(graph).encode())
    assert (reply["path_s"], reply["work_s"]) == (70.0, 90.0)
    assert [(task["method"], task["seconds"]) for task in reply["tasks"]] == [("rule", 10.0), ("rule", 60.0), ("given", 20.0)]
    shown = agentctl("estimate", "--file", "-", stdin=json.dumps(graph).encode()).out
    assert "longest chain 1 min 10 s, 1 min 30 s of work" in shown


def test_a_copy_of_a_large_workspace_costs_more_than_a_short_task(agentctl: Agentctl) -> None:
    workspace = Path(agentctl.directory, "project")
    workspace.mkdir()
    with Path(workspace, "data").open("wb") as file:
        file.truncate(2**31)
    options = ("--type", "test", "--workspace", str(workspace))
    reply = agentctl.document("estimate", *options, "--workspace-mode", "copy", "--", "make")
    (task,) = reply["tasks"]
    assert (task["advice"], task["workspace_bytes"]) == ("do it yourself", 2**31)
    assert "to copy the workspace" in task["reason"]
    assert agentctl.document("estimate", *options, "--", "make")["tasks"][0]["copy_s"] == 0.0


def test_what_would_be_refused_is_refused(agentctl: Agentctl) -> None:
    circle = [{"id": name, "input": {"argv": ["x"]}, "dependencies": [other]} for name, other in ("ab", "ba")]
    refused = agentctl("estimate", "--file", "-", stdin=json.dumps(circle).encode())
    assert (refused.code, "the tasks wait for each other: a -> b -> a" in refused.err) == (2, True), refused
    assert "no pool is called `nowhere`" in agentctl("estimate", "--pool", "nowhere", "--", "true").err


def test_a_pause_speaks_against_it(agentctl: Agentctl) -> None:
    agentctl("pause", "pool", "critical")
    try:
        (task,) = agentctl.document("estimate", "--pool", "critical", "--type", "test", "--", "make")["tasks"]
        assert (task["advice"], "pool critical is paused" in task["reason"]) == ("do it yourself", True)
    finally:
        agentctl("resume")
