"""`pause`, `resume`, `drain`, `stop` and `why`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.integration.cli.agentctl import Agentctl, Gate


@pytest.fixture(autouse=True)
def resumed(agentctl: Agentctl) -> Iterator[None]:
    yield
    agentctl("resume")


def state(agentctl: Agentctl, task: str) -> str:
    found: str = agentctl.document("show", task)["task"]["state"]
    return found


def behind(agentctl: Agentctl, gate: Gate) -> str:
    """The id of a running task that ends when the gate is opened."""
    begun = gate.workspace / "begun"
    (task,) = agentctl.submit(*gate.task(before="touch begun"))
    while not begun.exists():
        time.sleep(0.01)
    return task


def test_what_is_paused_waits_and_says_why(agentctl: Agentctl) -> None:
    paused = agentctl("pause", "agent", "command", "--reason", "for the night")
    assert (paused.code, paused.out) == (0, "")
    assert paused.err.startswith("paused: agent command, since ")
    assert paused.err.endswith(": for the night\n")
    (task,) = agentctl.submit("--", "true")
    assert agentctl("wait", task, "--timeout", "300ms").code == 5
    assert state(agentctl, task) == "ready"
    why = agentctl("why", task).out
    assert f"{task} is ready: agent command has been paused for" in why
    assert "(for the night); agentctl resume lets go of it" in why
    assert "paused  agent command" in agentctl("status").out
    assert agentctl.document("status")["paused"][0]["reason"] == "for the night"
    (other,) = agentctl.submit("--agent", "python", "--input", json.dumps({"function": "math:sqrt", "args": [4]}))
    assert agentctl("wait", other).code == 0
    assert agentctl("resume", "agent", "command").err == "nothing is paused\n"
    assert agentctl("wait", task).code == 0


def test_what_is_stopped_runs_again(agentctl: Agentctl, gate: Gate) -> None:
    task = behind(agentctl, gate)
    stopped = agentctl("stop", "--now", "--reason", "fire")
    assert stopped.out.split() == [task]
    assert "1 attempt ended" in stopped.err
    assert state(agentctl, task) == "ready"
    assert agentctl.document("resume") == {"paused": []}
    gate.open()
    assert agentctl("wait", task).code == 0
    shown = agentctl.document("show", task)["task"]
    assert shown["attempt"] == 2
    assert any("stopped by a pause of all: fire" in line for line in agentctl.document("why", task)["reasons"])


def test_a_drain_waits_for_what_runs(agentctl: Agentctl, gate: Gate) -> None:
    task = behind(agentctl, gate)
    early = agentctl("drain", "--timeout", "300ms")
    assert early.code == 5
    assert "1 task still running: nothing was stopped" in early.err
    draining = agentctl.start("drain")
    (waiting,) = agentctl.submit("--", "true")
    gate.open()
    assert draining.wait(60) == 0
    draining.communicate()
    assert state(agentctl, task) == "succeeded"
    assert state(agentctl, waiting) == "ready"


def test_the_reason_of_a_failure_is_followed_to_its_root(agentctl: Agentctl) -> None:
    graph = [
        {"id": "root", "input": {"argv": ["false"]}, "max_retries": 0},
        {"id": "middle", "input": {"argv": ["true"]}, "dependencies": ["root"]},
        {"id": "leaf", "input": {"argv": ["true"]}, "dependencies": ["middle"]},
    ]
    ids = agentctl.submit("--file", "-", stdin=json.dumps(graph).encode())
    agentctl("wait", *ids)
    lines = agentctl("why", ids[2]).out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{name} is failed" for name in reversed(ids)]
    assert "WORKER_FAILED" in lines[-1]


def test_what_waits_is_followed_to_what_runs(agentctl: Agentctl, gate: Gate) -> None:
    task = behind(agentctl, gate)
    (after,) = agentctl.submit("--depends-on", task, "--", "true")
    first, second = agentctl("why", after).out.splitlines()
    assert first == f"{after} waits for {task}"
    assert second.startswith(f"{task} is running: attempt 1 on worker ")
    gate.open()
    agentctl("wait", after)
    assert f"{after} succeeded in attempt 1" in agentctl("why", after).out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["pause", "pool"], 2, "which pool?"),
        (["pause", "all", "of it"], 2, "`all` has no name."),
        (["pause", "pool", "nowhere"], 2, "pool: no pool is called `nowhere`."),
        (["pause", "agent", "qwem"], 2, "agent: there is no agent `qwem`. Did you mean `qwen`?"),
        (["stop"], 2, "--now"),
        (["resume", "agent", "qwen"], 4, "there is no pause of agent qwen; paused: nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused(agentctl: Agentctl, arguments: list[str], code: int, says: str) -> None:
    done = agentctl(*arguments)
    assert done.code == code
    assert says in done.err
