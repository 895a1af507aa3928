"""`status`, `doctor`, `config` and `journal`; and a supervisor that is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from supervisord_agents.core.model import State
from tests.integration.cli.agentctl import Agentctl, Gate
from tests.support.daemon import DaemonProcess

HINT = "Start it: `systemctl start agent-supervisor`, or run `agent-supervisor`."


def test_the_version(agentctl: Agentctl) -> None:
    done = agentctl("--version")
    assert (done.code, done.out.split()[0]) == (0, "agentctl")


def test_status_tells_how_it_is(agentctl: Agentctl, gate: Gate, supervisor: DaemonProcess) -> None:
    (task,) = agentctl.submit(*gate.task())
    agentctl("wait", "--any", task, agentctl.ended("--", "true"))
    gate.open()
    done = agentctl("status")
    facts = {line[:12].strip(): line[12:] for line in done.out.splitlines() if line}
    assert (done.code, done.err) == (0, "")
    assert supervisor.process is not None
    assert facts["supervisor"].endswith(f", pid {supervisor.process.pid}")
    assert facts["new tasks"] == "accepted"
    assert " succeeded" in facts["tasks"]
    assert "standard " in facts["pools"]
    assert str(supervisor.state) in facts["journal"]


def test_status_lists_what_runs(agentctl: Agentctl, gate: Gate) -> None:
    (task,) = agentctl.submit(*gate.task(before="echo on"))
    with agentctl.start("logs", "-f", task) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it has begun"
        shown = agentctl("status").out
        gate.open()
        process.communicate()
    head, row = shown[shown.index("RUNNING") :].splitlines()[:2]
    assert head.split() == ["RUNNING", "AGENT", "TRY", "FOR", "WORKER", "PROGRESS"]
    assert row.split()[:3] == [task, "command", "1"]


def test_status_for_programs(agentctl: Agentctl, supervisor: DaemonProcess) -> None:
    reply = agentctl.document("status")
    assert reply["state_dir"] == str(supervisor.state)
    assert set(reply["counts"]) <= {state.value for state in State}
    assert reply["accepting"]
    assert reply["recovery"]["torn_bytes"] == 0


def test_without_a_supervisor_it_says_how_to_start_it(tmp_path: Path) -> None:
    alone = Agentctl(tmp_path / "nowhere.sock", tmp_path)
    for arguments in (["status"], ["submit", "--", "true"], ["wait", "g1"], ["logs", "-f", "g1"], ["events", "-f"]):
        done = alone(*arguments)
        assert (done.code, done.out) == (3, "")
        assert done.err == f"agentctl: {tmp_path}/nowhere.sock: no supervisor listens here. {HINT}\n"
    error = json.loads(alone("--json", "status").err)
    assert (error["code"], error["hint"]) == ("UNAVAILABLE", HINT)


def test_the_socket_of_the_command_line_comes_first(agentctl: Agentctl, supervisor: DaemonProcess) -> None:
    assert agentctl("--socket", "/nowhere.sock", "status").code == 3
    assert agentctl("status", "--socket", "/nowhere.sock").code == 3
    agentctl.environment["AGENT_SUPERVISOR_SOCKET"] = "/nowhere.sock"
    assert agentctl("status", "--socket", str(supervisor.socket)).code == 0
    del agentctl.environment["AGENT_SUPERVISOR_SOCKET"]
    (agentctl.directory / "config.toml").write_text(f'[daemon]\nsocket = "{supervisor.socket}"\n')
    assert agentctl("status", "--config", "config.toml").code == 0
    agentctl.environment["AGENT_SUPERVISOR_CONFIG"] = "config.toml"
    assert agentctl("status").code == 0


def test_the_doctor_judges_the_host_and_finds_the_supervisor(agentctl: Agentctl, supervisor: DaemonProcess) -> None:
    (agentctl.directory / "config.toml").write_text(f'[daemon]\nstate_dir = "{supervisor.state}"\n')
    done = agentctl("doctor", "--config", "config.toml", "--json")
    report = json.loads(done.out)
    assert done.code == (0 if report["ok"] else 1)
    assert report["ok"] == all(finding["mark"] != "missing" for finding in report["findings"])
    assert {"configuration", "sandbox", "agents", "directories", "supervisor"} <= {item["area"] for item in report["findings"]}
    layers = {finding["name"]: finding for finding in report["findings"] if finding["area"] == "sandbox"}
    assert layers["pid namespace"]["what"] == "on, says the running supervisor"  # its rights count, not ours
    assert "landlock files" in layers
    (running,) = [finding for finding in report["findings"] if finding["area"] == "supervisor"]
    assert (running["mark"], str(supervisor.socket) in running["what"]) == ("ok", True)


def test_the_doctor_works_without_a_supervisor_and_names_what_is_missing(tmp_path: Path) -> None:
    alone = Agentctl(tmp_path / "nowhere.sock", tmp_path)
    (tmp_path / "config.toml").write_text('[agents.qwen]\nexecutable = "/nowhere/qwen"\n')
    done = alone("doctor", "--config", "config.toml")
    (qwen,) = [line for line in done.out.splitlines() if line.startswith("  MISSING  qwen")]
    assert "/nowhere/qwen" in qwen
    assert "no supervisor listens here" in done.out
    assert "was made, and a program ran in it" in done.out
    assert (done.code, done.err) == (1, "")
    assert "missing." in done.out.splitlines()[-1]


def test_config_check(agentctl: Agentctl) -> None:
    (agentctl.directory / "good.toml").write_text("[tasks]\ntimeout_s = 5\n")
    (agentctl.directory / "bad.toml").write_text("[tasks]\ntimeout = 5\n")
    good = agentctl("config", "check", "good.toml")
    assert (good.code, good.out) == (0, "ok  good.toml\n")
    assert agentctl.document("config", "check", "good.toml") == {"file": "good.toml", "ok": True}
    bad = agentctl("config", "check", "bad.toml")
    assert (bad.code, bad.out, "tasks.timeout" in bad.err) == (1, "", True)
    machine = agentctl("config", "check", "bad.toml", "--json")
    assert (machine.code, machine.out) == (1, "")
    assert "tasks.timeout" in machine.err
    assert json.loads(machine.err)["code"] == "INVALID"
    none = agentctl("config", "check", "nowhere.toml")
    assert (none.code, none.out, "nowhere.toml: cannot be read" in none.err) == (2, "", True)


def test_config_show(agentctl: Agentctl) -> None:
    (agentctl.directory / "config.toml").write_text('[tasks]\ntimeout_s = 5\n[daemon]\nsocket = "/run/my.sock"\n')
    lines = agentctl("config", "show", "--config", "config.toml").out.splitlines()
    assert lines[0] == "# file    config.toml"
    assert lines[1] == "# socket  /run/my.sock"
    assert "tasks.timeout_s = 5.0" in lines
    assert agentctl.document("config", "show", "--config", "config.toml")["tasks"]["timeout_s"] == 5.0


def test_the_journal_of_a_running_supervisor_may_be_looked_at(agentctl: Agentctl, supervisor: DaemonProcess) -> None:
    task = agentctl.ended("--", "true")
    journal = str(supervisor.state / "journal")
    sound = agentctl("journal", "verify", journal)
    assert (sound.code, sound.out) == (0, f"ok  {journal}\n")
    assert agentctl.document("journal", "verify", journal) == {"directory": journal, "ok": True, "findings": []}
    records = agentctl.documents("journal", "dump", journal)
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    assert any(task in json.dumps(record["payload"]) for record in records)
    assert task in agentctl("journal", "dump", journal).out
    assert agentctl.document("journal", "stats", journal)["records"] == len(records)
    assert agentctl("journal", "stats", journal).out.startswith(f"directory  {journal}\n")
    refused = agentctl("journal", "repair", journal)
    assert (refused.code, "owns the journal" in refused.err) == (3, True)


def test_a_damaged_journal_is_found_and_repaired(agentctl: Agentctl, supervisor: DaemonProcess, tmp_path: Path) -> None:
    agentctl.ended("--", "true")
    journal = tmp_path / "journal"
    shutil.copytree(supervisor.state / "journal", journal)
    first, *_ = agentctl.documents("journal", "dump", str(journal))
    with open(first["path"], "r+b") as segment:
        segment.seek(first["offset"] + 20)
        segment.write(b"\xff\xff")
    found = agentctl("journal", "verify", str(journal))
    assert (found.code, found.out.startswith("damaged ")) == (1, True)
    assert not agentctl.document("journal", "verify", str(journal), code=1)["ok"]
    report = agentctl.document("journal", "repair", str(journal))
    assert (report["repaired"], report["records_lost"], report["lost"]) == (True, 1, [[1, 1]])
    assert Path(report["kept_in"]).is_dir()
    assert agentctl("journal", "verify", str(journal)).code == 0
    again = agentctl("journal", "repair", str(journal))
    assert (again.code, "nothing was changed" in again.out) == (0, True)
    missing = agentctl("journal", "verify", str(tmp_path / "nowhere"))
    assert (missing.code, "there is no journal" in missing.err) == (4, True)
