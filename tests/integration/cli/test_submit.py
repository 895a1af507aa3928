"""`submit`: from the command line, from files, waited for and followed."""

from __future__ import annotations

import json
from pathlib import Path

from supervisord_agents.core.model import Failure, State
from supervisord_agents.wire import messages as m
from tests.integration.cli.conftest import Agentctl
from tests.integration.cli.small_supervisor import SmallSupervisor


async def test_a_command_is_submitted_with_everything_the_options_say(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    (agentctl.directory / "in.txt").write_text("süß\n")
    done = await agentctl(
        *(
            "submit",
            "--id",
            "one",
            "--type",
            "survey",
            "--priority",
            "0",
            "--timeout",
            "2m",
            "--deadline",
            "1h",
            "--retries",
            "0",
        ),
        *("--workspace", "work", "--pool", "critical", "--depends-on", "g0.a", "--env", "A=b=c", "--stdin", "in.txt"),
        *("--", "grep", "--", "-x", "--json"),
    )
    assert (done.code, done.out, done.err) == (0, "g0.one\n", "")
    spec = supervisor.specs["g0.one"]
    assert spec.input == {"argv": ["grep", "--", "-x", "--json"], "env": {"A": "b=c"}, "stdin": "süß\n"}
    assert (spec.type, spec.priority, spec.timeout_s, spec.deadline_s, spec.max_retries) == ("survey", 0, 120.0, 3600.0, 0)
    assert (spec.workspace, spec.pool, spec.dependencies) == (str(agentctl.directory / "work"), "critical", ("g0.a",))


async def test_a_prompt_goes_to_the_agent_that_is_named(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    assert (await agentctl("submit", "--agent", "qwen", "--prompt", "-", stdin=b"write a test")).code == 0
    assert supervisor.specs["g0.t1"].agent == "qwen"
    assert supervisor.specs["g0.t1"].input == {"prompt": "write a test"}
    unnamed = await agentctl("submit", "--prompt", "write a test")
    assert unnamed.code == 2
    assert "--agent: is missing" in unnamed.err


async def test_graphs_come_from_json_toml_and_standard_input(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    tasks = [{"id": "A", "input": {"argv": ["true"]}, "workspace": "here"}, {"id": "B", "dependencies": ["A"]}]
    (agentctl.directory / "graph.json").write_text(json.dumps({"tasks": tasks, "key": "k"}))
    (agentctl.directory / "graph.toml").write_text('[[tasks]]\nid = "A"\ninput.argv = ["true"]\n')
    assert (await agentctl("submit", "--file", "graph.json")).out == "g0.A\ng0.B\n"
    assert supervisor.specs["g0.A"].workspace == str(agentctl.directory / "here")
    again = await agentctl("submit", "--file", "graph.json")
    assert (again.out, "seen before" in again.err) == ("g0.A\ng0.B\n", True)
    assert (await agentctl("submit", "--file", "graph.toml")).out == "g2.A\n"
    assert (await agentctl("submit", "--file", "-", stdin=json.dumps(tasks).encode())).out == "g3.A\ng3.B\n"
    assert (await agentctl("submit", "--file", "-", stdin=b'[[tasks]]\nid = "A"\n')).out == "g5.A\n"


async def test_bad_files_are_refused_with_the_field_before_anything_is_sent(
    supervisor: SmallSupervisor, agentctl: Agentctl
) -> None:
    cases = [
        (b'{"tasks": [{"priority": "high"}]}', "standard input: tasks[0].priority: Expected `int`, got `str`."),
        (b'{"tasks": [{"argv": ["true"]}]}', "unknown field `argv`."),
        (b'{"tasks": [{"id": "A"', "not valid JSON"),
        (b'{"tasks": "A"}', "standard input: tasks: Expected `array`, got `str`."),
        (b'{"tasks": ' + b"[" * 100_000, "nested too deeply"),
        (b"tasks = [", "not valid TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"", "standard input: is empty"),
        (b"3", "not valid TOML"),
    ]
    for data, says in cases:
        done = await agentctl("submit", "--file", "-", stdin=data)
        assert (done.code, done.out) == (2, ""), data[:40]
        assert says in done.err, done.err
        assert done.err.count("\n") == 1, done.err
    missing = await agentctl("submit", "--file", "nowhere.json")
    assert (missing.code, "nowhere.json: cannot be read: No such file" in missing.err) == (2, True)
    both = await agentctl("submit", "--file", "-", "--priority", "1")
    assert (both.code, "--priority: does not go with --file" in both.err) == (2, True)
    assert not supervisor.requests


async def test_a_refusal_of_the_supervisor_is_one_line_or_one_object(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    plain = await agentctl("submit", "--agent", "nobody", "--", "true")
    assert (plain.code, plain.out) == (2, "")
    assert plain.err == "agentctl: tasks[0].agent: there is no agent `nobody`. Known: command.\n"
    machine = await agentctl("submit", "--agent", "nobody", "--json", "--", "true")
    assert (machine.code, machine.out) == (2, "")
    assert json.loads(machine.err)["field"] == "tasks[0].agent"


async def test_wait_prints_the_output_of_the_task_where_it_belongs(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    process = await agentctl.start("submit", "--wait", "--", "make")
    await supervisor.requested(m.Wait)
    supervisor.move("g0.t1", State.RUNNING)
    output = {"exit_code": 2, "stdout": "out\x1b[2J", "stderr": "err\n"}
    supervisor.end("g0.t1", output, Failure(code="WORKER_FAILED", message="exited with code 2", hint="See the log."))
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"out\x1b[2J")
    assert err.decode() == "submitted g0.t1\nerr\nfailed: WORKER_FAILED exited with code 2 See the log.\n"


async def test_wait_for_a_graph_as_json_is_one_object(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    process = await agentctl.start("submit", "--file", "-", "--wait", "--json")
    assert process.stdin is not None
    process.stdin.write(b'[{"id": "A"}, {"id": "B"}]')
    process.stdin.close()
    await supervisor.requested(m.Wait)
    supervisor.end("g0.A")
    supervisor.end("g0.B")
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    reply = json.loads(out)
    assert (reply["done"], [task["id"] for task in reply["tasks"]]) == (True, ["g0.A", "g0.B"])
    assert reply["tasks"][0]["retry_at"] == 0.0, "fields at their default are there too"


async def test_follow_prints_the_log_of_a_task_until_it_ends(supervisor: SmallSupervisor, agentctl: Agentctl) -> None:
    process = await agentctl.start("submit", "--follow", "--", "make")
    await supervisor.requested(m.Subscribe)
    supervisor.move("g0.t1", State.RUNNING)
    supervisor.write("g0.t1", b"one\n")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"one\n"
    supervisor.write("g0.t1", b"two\xff\n")
    supervisor.end("g0.t1")
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"two\xff\n")
    assert err.decode().splitlines()[0] == "submitted g0.t1"
    assert err.decode().splitlines()[1].startswith("succeeded after ")


async def test_follow_of_a_graph_names_the_task_of_each_line(
    supervisor: SmallSupervisor, agentctl: Agentctl, tmp_path: Path
) -> None:
    (tmp_path / "graph.json").write_text('[{"id": "A"}, {"id": "B"}]')
    process = await agentctl.start("submit", "--file", "graph.json", "--follow")
    await supervisor.requested(m.Subscribe)
    supervisor.write("g0.A", b"first\nsecond without an end")
    supervisor.write("g0.B", b"other\n")
    supervisor.end("g0.A")
    supervisor.end("g0.B")
    out, _ = await process.communicate()
    assert process.returncode == 0
    lines = out.decode().splitlines()
    assert {"A | first", "A | second without an end", "B | other"} <= set(lines)
    assert lines[-2].split()[:2] == ["g0.A", "succeeded"]
