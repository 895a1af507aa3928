"""`graph`: a plan while it is carried out, and what is said when nothing goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.integration.cli.agentctl import Agentctl


@pytest.fixture(autouse=True)
def resumed(agentctl: Agentctl) -> Iterator[None]:
    yield
    agentctl("resume")


def submitted(agentctl: Agentctl) -> str:
    """The graph of the research, section 5, with a task that nobody knows how long it takes."""

    def task(name: str, estimate_s: float, *after: str) -> dict[str, object]:
        given = {"id": name, "estimate_s": estimate_s, "dependencies": after, "input": {"argv": ["true"]}}
        return {key: value for key, value in given.items() if value}

    tasks = [task("A", 5), task("B", 10, "A"), task("C", 2, "A"), task("D", 3, "B", "C"), task("U", 0)]
    names = agentctl.submit("--file", "-", stdin=json.dumps({"tasks": tasks}).encode())
    return names[0].partition(".")[0]


def test_a_plan_before_and_after(agentctl: Agentctl) -> None:
    agentctl("pause", "agent", "qwen")  # is not in the way
    agentctl("pause", "--reason", "look first")
    graph = submitted(agentctl)
    never = agentctl.document("graph", graph)
    assert never["end_s"] is None
    assert never["critical_path"] == [f"{graph}.A", f"{graph}.B", f"{graph}.D"]
    assert (never["critical_s"], never["bound_s"], never["unknown"]) == (18, 18, 1)
    assert [task["slack_s"] for task in never["tasks"]] == [0, 0, 8, 0, 17]
    assert [task["estimated"] for task in never["tasks"]] == [True, True, True, True, False]

    shown = agentctl("graph", f"{graph}.C")
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[1] == f"{graph}.A ready 5 5.00 s now now 0.00 s never never critical".split()
    assert lines[3] == f"{graph}.C blocked 5 2.00 s +5.00 s +13 s 8.00 s never never".split()
    assert lines[5] == f"{graph}.U ready 5 ? now +17 s 17 s never never".split()
    assert f"critical path  {graph}.A -> {graph}.B -> {graph}.D\n" in shown.out
    assert "forecast       never" in shown.out

    (first,) = agentctl.document("graph", graph, "--limit", "1")["tasks"]
    rest = agentctl.document("graph", graph, "--after", first["id"])
    assert (first["id"], [task["id"][-1] for task in rest["tasks"]], rest["next"]) == (f"{graph}.A", ["B", "C", "D", "U"], "")
    assert agentctl("graph", graph, "--limit", "0").code == 2
    assert agentctl("graph", graph, "--after", "x").code == 2
    assert agentctl("graph", "nothing").code == 4

    dot = agentctl("graph", graph, "--dot").out
    assert dot.startswith("digraph {\n")
    assert f'"{graph}.B" -> "{graph}.D";' in dot

    while (still := agentctl.document("status")["standstill"]) is None:
        time.sleep(0.1)
    assert any("all has been paused for" in reason and "(look first)" in reason for reason in still["reasons"])
    assert "stands still  since " in agentctl("status").out

    agentctl("resume", "all")
    planned = agentctl.document("graph", graph)
    assert planned["end_s"] is not None
    assert planned["end_s"] >= planned["bound_s"]
    assert agentctl("wait", graph).code == 0
    over = agentctl.document("graph", graph)
    assert (over["open"], over["work_s"], over["end_s"]) == (0, 0, 0)
    assert all(task["est_s"] <= task["end_s"] < 0 for task in over["tasks"])
    assert over["critical_path"][-1] == max(over["tasks"], key=lambda task: task["end_s"])["id"]
    assert "all have ended" in agentctl("graph", graph).out
    assert agentctl.document("status")["standstill"] is None
