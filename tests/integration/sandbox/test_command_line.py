"""`python -m sandbox` as people and scripts use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.sandbox import Maker, without_notice


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 1", 1), ("exit 124", 124), ("exit 255", 255), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_the_commands_own(by: Maker, script: str, code: int) -> None:
    done = by.run("sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_input_output_and_errors_go_through(by: Maker) -> None:
    with by.start("run", "--", "sh", "-c", "cat; echo wrong >&2", stdin=-1) as process:
        out, err = process.communicate("ünder\n" * 100_000, timeout=60)
    assert (out, without_notice(err)) == ("ünder\n" * 100_000, "wrong\n")


def test_arguments_arrive_as_they_were_given(by: Maker) -> None:
    words = ["", " a b ", "*", "$HOME", "--", "-c", "ü", '"', "'", "\\n", "\n"]
    assert by.python("import json, sys; print(json.dumps(sys.argv[1:]))", *words) == words


def test_without_the_dashes_it_is_the_same(by: Maker) -> None:
    assert by.call("run", "sh", "-c", "exit 4").returncode == 4


@pytest.mark.parametrize("command", ["no-such-command", "/no/such/command", "./no-such-command", "/usr"])
def test_a_command_that_is_not_there_is_told(by: Maker, command: str) -> None:
    done = by.run(command)
    assert done.returncode == 125
    assert done.stderr.startswith(f"sandbox: exec: {command} ")
    assert ("is not there inside" in done.stderr) == (command != "/usr")


def test_a_command_that_is_on_the_host_but_not_shown_is_not_there(by: Maker) -> None:
    program = by.directory("program") / "mine"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    done = by.run(str(program))
    assert (done.returncode, done.stdout) == (125, "")
    assert by.run(str(program), options=("--read", str(program))).stdout == "ran\n"
    program.chmod(0o644)
    done = by.run(str(program), options=("--read", str(program)))
    assert (done.returncode, done.stderr) == (125, f"sandbox: exec: {program} cannot be run inside: Permission denied.\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--profile", "nosuch"),
            "sandbox: profile: no profile nosuch. There are: agent, build, open, strict; or give a file.toml.",
        ),
        (("--profile", "/no/such.toml"), "sandbox: profile: no profile /no/such.toml."),
        (("--env", "NAME"), "sandbox: spec: --env NAME: is not NAME=VALUE."),
        (("--env", "=x"), "sandbox: spec: env: "),
        (("--read", "/"), "sandbox: spec: binds: the root itself cannot be bound."),
        (("--write", "/no/such"), "/no/such"),
    ],
)
def test_a_refusal_is_125_and_one_line_that_names_it(by: Maker, options: tuple[str, ...], told: str) -> None:
    done = by.run("true", options=options)
    assert (done.returncode, done.stdout) == (125, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_profile_of_ones_own(by: Maker) -> None:
    shown = by.directory("shown")
    (shown / "file").write_text("text")
    text = (
        f'hostname = "mine"\nhere = "read"\nenv = {{ A = "1", B = "2" }}\nreplace = ["pass_env"]\npass_env = ["PASSED"]\n'
        f'[[paths]]\nsource = "{shown}"\n'
    )
    script = f"hostname; pwd; cat {shown}/file; echo $A $B $PASSED $TERM; echo x >new"
    environment = {**by.environment(), "PASSED": "on", "TERM": "dumb"}
    here = by.directory("here")
    done = by.run("sh", "-c", script, options=("--profile", by.profile(text), "--env", "B=3"), env=environment, cwd=here)
    assert done.stdout == f"mine\n{here}\ntext1 3 on\n"
    assert "Read-only file system" in done.stderr


def test_a_wrong_profile_is_told_with_its_key(by: Maker) -> None:
    for text, key in (("memory = 1", "memory"), ("pids = -1", "pids"), ('hostname = "a b"', "hostname"), ("pids = 'x'", "pids")):
        done = by.run("true", options=("--profile", by.profile(text)))
        assert done.returncode == 125
        assert key in done.stderr


def test_the_built_in_profiles(by: Maker) -> None:
    here = by.directory("here")
    for profile, places in (("strict", "/home/worker"), ("agent", str(here))):
        done = by.run("sh", "-c", "pwd; touch made", options=("--profile", profile), cwd=here)
        assert (done.returncode, done.stdout) == (0, f"{places}\n")
    assert [path.name for path in here.iterdir()] == ["made"]


def test_the_plan_is_what_is_then_seen(by: Maker) -> None:
    shown = by.directory("shown")
    options = ("--read", str(shown), "--profile", "agent")
    here = by.directory("here")
    done = by.call("show-plan", *options, cwd=here)
    assert done.returncode == 0, done.stderr
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert told[str(shown)] == "the host's, read-only"
    assert told[str(here)] == "the host's, WRITABLE"
    code = """
import json, os, sys
def kind(path):
    if os.path.islink(path):
        return "-> " + os.readlink(path)
    return "there" if os.path.lexists(path) else "missing"
print(json.dumps({path: kind(path) for path in sys.argv[1:]}))
"""
    seen = by.python(code, *told, options=options, cwd=here)
    expected = {path: what if what.startswith("->") else "there" for path, what in told.items()}
    assert seen == expected


def test_the_doctor_tells_every_layer(by: Maker) -> None:
    done = by.call("doctor", "--json")
    layers = {layer["name"]: layer for layer in json.loads(done.stdout)}
    needed = ("mount namespace", "pid namespace", "net namespace", "pivot_root", "seccomp", "no_new_privs")
    assert all(layers[name]["enforced"] for name in needed), layers
    missing = [name for name, layer in layers.items() if layer["needed"] and not layer["enforced"]]
    assert done.returncode == (1 if missing else 0)
    assert all(layers[name]["remedy"] for name in missing)
    for_people = by.call("doctor")
    assert for_people.returncode == done.returncode
    for name in layers:
        assert f"  {name} " in for_people.stdout


def test_wrong_usage_is_told_and_helped() -> None:
    run = [sys.executable, "-m", "sandbox"]
    for arguments in ([], ["nosuch"], ["run", "--nosuch"]):
        done = subprocess.run([*run, *arguments], capture_output=True, text=True, timeout=60, check=False, env={**os.environ})
        assert done.returncode == 2
        assert "usage: python -m sandbox" in done.stderr
    done = subprocess.run([*run, "run", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "agent, build, open, strict" in done.stdout
