"""`wait`: any, all, the time, exit codes, and a supervisor that goes away."""

from __future__ import annotations

from tests.integration.cli.agentctl import Agentctl, Gate
from tests.support.daemon import DaemonProcess


def test_wait_for_all(agentctl: Agentctl) -> None:
    good = agentctl.ended("--", "true")
    bad = agentctl.ended("--retries", "0", "--", "false")
    both = agentctl("wait", good, bad)
    assert (both.code, [line.split()[:2] for line in both.out.splitlines()[1:]]) == (
        1,
        [[good, "succeeded"], [bad, "failed"]],
    )
    assert agentctl("wait", good).code == 0
    assert agentctl("wait", good.partition(".")[0]).code == 0, "a graph stands for its tasks"
    assert agentctl("wait", good, good).out.count(good) == 1


def test_the_time_may_be_over_first(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task())
    done = agentctl("wait", task, "--timeout", "10ms")
    assert (done.code, done.out.splitlines()[1].split()[0]) == (5, task)
    assert done.err == "the time was over; 1 task not ended: nothing was stopped\n"
    reply = agentctl.document("wait", task, "--timeout", "0", code=5)
    assert (reply["done"], [view["id"] for view in reply["tasks"]]) == (False, [task])
    gate.open()
    assert agentctl("wait", task, "--timeout", "1h").code == 0


def test_wait_for_any(agentctl: Agentctl, gate: Gate) -> None:
    (held,) = agentctl.submit(*gate.task())
    ended = agentctl.ended("--", "true")
    done = agentctl("wait", "--any", held, ended)
    assert done.code == 0
    assert held in done.out
    failed = agentctl.ended("--retries", "0", "--", "false")
    assert agentctl("wait", "--any", held, failed).code == 1
    assert agentctl("wait", held, ended, "--timeout", "0").code == 5
    gate.open()
    assert agentctl("wait", held, ended).code == 0


def test_a_wait_goes_on_over_a_crash_of_the_supervisor(agentctl: Agentctl, gate: Gate, supervisor: DaemonProcess) -> None:
    (task,) = agentctl.submit(*gate.task())
    terminal = agentctl.terminal("wait", task)
    terminal.read_until("0 of 1 ended, 1 running")
    supervisor.kill()
    terminal.read_until("the supervisor went away; waiting for it to come back …")
    supervisor.spawn()
    gate.open()
    code, text = terminal.finish()
    last = text.splitlines()[-1]
    assert (code, task in last, "succeeded" in last) == (0, True, True)
