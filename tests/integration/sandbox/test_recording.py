"""`record` writes a profile under which the command then works, and shows no secret meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandbox.profile import load
from tests.support.sandbox import Maker


def recorded(by: Maker, *command: str, options: tuple[str, ...] = (), **more: Any) -> tuple[Path, str, str]:
    """The profile, and what the command printed; without the limits that an ordinary user may lack."""
    output = by.directory("profile") / "new.toml"
    optional = ("--optional", "cgroup") if by.name == "ordinary" else ()
    done = by.call("record", *optional, "--output", str(output), *options, "--", *command, **more)
    assert done.returncode == 0, done.stderr
    assert f"sandbox: written: {output}" in done.stderr
    return output, done.stdout, done.stderr


def test_git_status_in_a_repository(by: Maker) -> None:
    here = by.directory("repository")
    subprocess.run(["git", "init", "-q", here], check=True)
    (here / "new").write_text("text")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{by.uid}:{by.uid}", here], check=True)
    profile, printed, _ = recorded(by, "git", "status", "--short", options=("--profile", "agent"), cwd=here)
    assert tomllib.loads(profile.read_text())["here"] == "write"
    done = by.run("git", "status", "--short", options=("--profile", str(profile)), cwd=here)
    assert (done.returncode, done.stdout, printed) == (0, "?? new\n", "?? new\n")


def test_a_script_with_an_environment_of_packages_outside_of_usr(by: Maker) -> None:
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("there is no /usr/bin/python3 to make an environment of")
    packages = by.directory("packages")
    subprocess.run([python, "-m", "venv", "--without-pip", packages], check=True)
    (library,) = packages.glob("lib/python3.*/site-packages")
    library /= "mine"
    library.mkdir()
    (library / "__init__.py").write_text("ANSWER = 42\n")
    here = by.directory("here")
    (here / "script.py").write_text("import json, mine\nprint(json.dumps(mine.ANSWER))\n")
    command = (str(packages / "bin/python"), "script.py")
    profile, printed, _ = recorded(by, *command, options=("--see", str(packages)), cwd=here)
    written = tomllib.loads(profile.read_text())
    assert written["here"] == "read"
    assert written["paths"] == [{"source": str(packages)}]
    done = by.run(*command, options=("--profile", str(profile)), cwd=here)
    assert (done.returncode, done.stdout, printed) == (0, "42\n", "42\n")


def test_node_with_modules(by: Maker) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    project = by.directory("project")
    module = project / "node_modules" / "mine"
    module.mkdir(parents=True)
    (module / "package.json").write_text('{"main": "main.js"}')
    (module / "main.js").write_text("module.exports = 42;")
    here = project / "work"
    here.mkdir()
    (here / "script.js").write_text("console.log(require('mine'));")
    command = ("node", "script.js")
    profile, printed, _ = recorded(by, *command, options=("--see", str(project)), cwd=here)
    assert [path["source"] for path in tomllib.loads(profile.read_text())["paths"]] == [str(project / "node_modules")]
    done = by.run(*command, options=("--profile", str(profile)), cwd=here)
    assert (done.returncode, done.stdout, printed) == (0, "42\n", "42\n")


def test_hosts_and_refused_calls_are_noted_and_nothing_is_reached(by: Maker) -> None:
    code = """
import ctypes, socket, urllib.request
for url in ("https://packages.example.org/simple", "https://other.example.org:8443/", "http://plain.example.org/"):
    try:
        urllib.request.urlopen(url, timeout=30)
    except OSError as error:
        print(error)
try:
    socket.create_connection(("192.0.2.1", 22))
except OSError as error:
    print(error)
ctypes.CDLL(None).ptrace(0, 0, 0, 0)
"""
    profile, printed, _ = recorded(by, "python3", "-I", "-S", "-c", code)
    assert printed.count("502") == 3
    text = profile.read_text()
    assert 'hosts = ["other.example.org:8443", "packages.example.org", "plain.example.org:80"]' in text
    assert "#   192.0.2.1:22\n" in text
    assert "#   ptrace (1)\n" in text


def test_the_home_is_shown_without_its_secrets_and_this_is_said(by: Maker) -> None:
    home = by.directory("home")
    for name in (".ssh/id", ".npmrc", ".bashrc", "api-token.txt", ".config/gh/hosts.yml", ".config/tool/settings", "bin/tool"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    script = f"cd {home}; find . -type f | sort"
    environment = {**by.environment(), "HOME": str(home)}
    _, printed, told = recorded(by, "sh", "-c", script, env=environment, cwd=by.directory("here"))
    assert printed.split() == ["./.config/tool/settings", "./bin/tool"]
    assert f"sandbox: RECORDING. The command can read, of what you can: {home}/.config/tool, {home}/bin" in told
    assert "It can write to nothing of the host, and reaches no network." in told


def test_what_the_profile_takes_away_stays_away_and_only_what_was_used_of_its_grants_is_granted(by: Maker) -> None:
    here, used, unused = (by.directory(name) for name in ("here", "used", "unused"))
    (used / "seen").write_text("seen")
    (used / "masked").write_text("secret")
    paths = "".join(f'[[paths]]\nsource = "{path}"\n' for path in (used, unused))
    base = by.profile(
        f'extends = "agent"\npids = 77\nhosts = ["unused.example.org"]\nloopback_ports = [8000]\nmasked = ["{used}/masked"]\n'
        f'deny_syscalls = ["network"]\n{paths}'
    )
    command = ("sh", "-c", f"cat {used}/seen {used}/masked; true")
    profile, printed, _ = recorded(by, *command, options=("--profile", base), cwd=here)
    assert os.path.join(profile.parent, tomllib.loads(profile.read_text())["extends"]) == base
    written = load(str(profile))
    assert (written.pids, written.masked, written.deny_syscalls) == (77, (f"{used}/masked",), ("network",))
    assert (written.here, written.hosts, written.loopback_ports) == ("", (), ())
    assert str(unused) not in [path.source for path in written.paths]
    done = by.run(*command, options=("--profile", str(profile)), cwd=here)
    assert (done.stdout, printed) == ("seen", "seen")


def test_what_could_not_be_written_is_told_and_not_granted(by: Maker) -> None:
    here = by.directory("here")
    profile, _, _ = recorded(by, "sh", "-c", "echo x >made; true", cwd=here)
    text = profile.read_text()
    assert f"record with --write to see more:\n#   {here}/made\n" in text
    assert tomllib.loads(text)["here"] == ""
    other = by.directory("other")
    profile, _, _ = recorded(by, "sh", "-c", f"echo x >{other}/made", options=("--write", str(other)), cwd=here)
    assert tomllib.loads(profile.read_text())["paths"] == [{"source": str(other), "writable": True}]


def test_nothing_is_written_over(by: Maker) -> None:
    profile = by.profile("# mine\n")
    done = by.call("record", "--output", profile, "--", "true")
    assert (done.returncode, done.stderr) == (
        125,
        f"sandbox: record: {profile} is there already. Name another: --output FILE.\n",
    )
    assert Path(profile).read_text() == "# mine\n"


@pytest.mark.parametrize("path", ["/proc", "/run", "/", "/no/such"])
def test_what_no_recording_shows(by: Maker, path: str) -> None:
    done = by.call("record", "--see", path, "--output", str(by.directory("out") / "p.toml"), "--", "true")
    assert done.returncode == 125
    assert f"sandbox: record: --see {path}: " in done.stderr
