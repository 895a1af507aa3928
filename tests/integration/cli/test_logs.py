"""`logs` and `events`: what there is, and what comes."""

from __future__ import annotations

import base64
import json
import signal
import time

import psutil

from tests.integration.cli.agentctl import Agentctl, Gate, read_until
from tests.support.daemon import DaemonProcess

BYTES = r"printf 'a\377\033[31m\rb\n'"


def test_a_log_is_there_byte_for_byte(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "sh", "-c", BYTES)
    code, out, err = agentctl.bytes("logs", task)
    assert (code, err) == (0, b"")
    assert b"a\xff\x1b[31m\rb\n" in out
    assert agentctl.bytes("logs", task, "--raw") == (0, out, b"")
    assert agentctl.bytes("logs", task, "--offset", "10") == (0, out[10:], b"")
    assert agentctl.bytes("logs", task, "--offset", str(len(out) + 5)) == (0, b"", b"")


def test_a_long_log_comes_whole(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "sh", "-c", "seq 1 120000")
    whole = agentctl.bytes("logs", task)[1]
    numbers = [line for line in whole.splitlines() if not line.startswith(b"[supervisor]")]
    assert len(whole) > 2 * 262_144, "more than two pieces"
    assert numbers == [b"%d" % number for number in range(1, 120001)]
    assert agentctl.bytes("logs", "-f", task)[1] == whole
    pieces = agentctl.documents("logs", task)
    assert b"".join(base64.b64decode(piece["data"]) for piece in pieces) == whole
    assert [piece["ended"] for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1]["offset"] == len(whole)


def test_following_a_log_shows_it_while_the_task_runs_and_ends_with_it(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task(before="echo one", after=BYTES))
    with agentctl.start("logs", "-f", task) as process:
        read_until(process, b"one\n")
        gate.open()
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"a\xff\x1b[31m\rb\n" in out


def test_following_a_log_goes_on_over_attempts(agentctl: Agentctl, gate: Gate) -> None:
    fails_once = "test -e second || { echo first; exit 1; }"
    (task,) = agentctl.submit(*gate.task(before="echo begin", after=fails_once))
    with agentctl.start("logs", "-f", task) as process:
        read_until(process, b"begin\n")
        gate.open()
        read_until(process, b"first\n")
        between = read_until(process, b"begin\n")
        assert any(b"backing_off" in line for line in between)
        (gate.workspace / "second").touch()
        gate.open()
        out, _ = process.communicate()
    assert process.returncode == 0
    assert b"attempt 2 is over, the task is succeeded" in out


def test_following_a_log_goes_on_over_a_crash_of_the_supervisor(
    agentctl: Agentctl, gate: Gate, supervisor: DaemonProcess
) -> None:
    (task,) = agentctl.submit(*gate.task(before="echo begin", after="echo end"))
    with agentctl.start("logs", "-f", task) as process:
        read_until(process, b"begin\n")
        supervisor.kill()
        supervisor.spawn()
        read_until(process, b"[supervisor] the supervisor was restarted; attempt 1 goes on\n")
        gate.open()
        out, err = process.communicate()
    assert process.returncode == 0
    assert b"end\n" in out
    assert err.decode() == "the supervisor went away; waiting for it to come back …\n"
    assert agentctl.bytes("logs", task)[1].count(b"begin\n") == 1


def test_a_log_that_ended_is_printed_and_not_waited_for(agentctl: Agentctl) -> None:
    task = agentctl.ended("--retries", "0", "--", "sh", "-c", "echo x; exit 1")
    done = agentctl("logs", "-f", task)
    assert (done.code, "x\n" in done.out) == (0, True), "it was the log that was asked for"


def test_remembered_events_of_a_task(agentctl: Agentctl) -> None:
    task = agentctl.ended("--retries", "0", "--", "false")
    done = agentctl("events", "--graph", task[:-3])
    words = [line.split()[1:] for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [word[:2] for word in words] == [[task, "ready"], [task, "running"], [task, "failed"]]
    assert words[2][2:5] == ["attempt", "1", "WORKER_FAILED"]


def test_events_as_json_can_be_taken_up_again(agentctl: Agentctl) -> None:
    task = agentctl.ended("--", "true")
    items = agentctl.documents("events", "--graph", task)
    assert [item["state"] for item in items] == ["ready", "running", "succeeded"]
    rest = agentctl.documents("events", "--graph", task, "--after", items[0]["token"])
    assert rest == items[1:]


def test_events_that_cannot_be_told(agentctl: Agentctl) -> None:
    bad = agentctl("events", "--after", "yesterday")
    assert (bad.code, "after: `yesterday` is not a resume token." in bad.err) == (2, True)
    for arguments in (["events", "--graph", "gnowhere"], ["events", "-f", "--graph", "gnowhere"]):
        unknown = agentctl(*arguments)
        assert (unknown.code, "no task is called `gnowhere`" in unknown.err) == (4, True)


def test_followed_events_come_at_once_through_a_pipe_and_end_with_ctrl_c(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task())
    with agentctl.start("events", "-f", "--graph", task, "--after", "0.1") as process:
        assert process.stdout is not None
        words: list[str] = []
        while "running" not in words:
            words = process.stdout.readline().decode().split()
        gate.open()
        while "succeeded" not in words:
            words = process.stdout.readline().decode().split()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_followed_events_go_on_over_a_crash_and_hold_logs(agentctl: Agentctl, gate: Gate, supervisor: DaemonProcess) -> None:
    # Output is not repeated to who comes later, and when the subscription stands again cannot be seen from outside.
    (task,) = agentctl.submit(*gate.task(after="while [ ! -e heard ]; do echo said; sleep 0.01; done"))
    arguments = ("events", "-f", "--json", "--logs", "--graph", task, "--after", "0.1")
    with agentctl.start(*arguments) as process:
        assert process.stdout is not None
        states: list[str] = []
        logged = b""

        def take() -> None:
            nonlocal logged
            assert process.stdout is not None
            item = json.loads(process.stdout.readline())
            states.append(item["state"])
            logged += base64.b64decode(item["data"])

        while "running" not in states:
            take()
        supervisor.kill()
        supervisor.spawn()
        while not clients(supervisor):
            time.sleep(0.01)
        gate.open()
        while b"said\n" not in logged:
            take()
        (gate.workspace / "heard").touch()
        while "succeeded" not in states:
            take()
        process.send_signal(signal.SIGINT)
        process.communicate()


def clients(supervisor: DaemonProcess) -> int:
    """How many are connected, beside the socket that listens."""
    assert supervisor.process is not None
    sockets = psutil.Process(supervisor.process.pid).net_connections("unix")
    return max(0, sum(found.laddr == str(supervisor.socket) for found in sockets) - 1)
