"""What `python -m sandbox run` grants of the current directory, and which limits it says do not hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sandbox import landlock
from sandbox.probe import WAYS
from tests.support.sandbox import TIMEOUT_S, Maker, without_notice


@pytest.mark.parametrize("where", ["home", "parent", "/usr/share", "/etc", "/tmp", "/", "settings"])
def test_what_is_no_project_is_not_given_to_a_command(by: Maker, where: str) -> None:
    home = by.directory("home")
    (home / ".config").mkdir()
    here = {"home": home, "parent": home.parent, "settings": home / ".config"}.get(where, Path(where))
    environment = {**by.environment(), "HOME": str(home)}
    done = by.run("sh", "-c", "touch made-by-a-test", options=("--profile", "agent"), cwd=here, env=environment)
    assert done.returncode == 125
    said = without_notice(done.stderr)
    assert said.startswith(f"sandbox: profile: {here} is not given to the command: it ")
    assert f"--write {here}" in said
    assert not (here / "made-by-a-test").exists()


def test_a_home_that_is_named_is_given(by: Maker) -> None:
    home = by.directory("home")
    environment = {**by.environment(), "HOME": str(home)}
    options = ("--profile", "agent", "--write", str(home))
    done = by.run("sh", "-c", "touch made; pwd", options=options, cwd=home, env=environment)
    assert (done.returncode, done.stdout) == (0, f"{home}\n"), done.stderr
    assert (home / "made").exists()


def test_the_runtime_directory_is_not_given(by: Maker) -> None:
    runtime = by.directory("runtime")
    (runtime / "bus").mkdir()
    environment = {**by.environment(), "XDG_RUNTIME_DIR": str(runtime)}
    done = by.run("true", options=("--profile", "agent"), cwd=runtime / "bus", env=environment)
    assert done.returncode == 125
    assert f"it lies in {runtime}, which no sandbox may reach" in done.stderr


def test_limits_that_do_not_hold_are_refused_or_told(by: Maker) -> None:
    refused = by.call("run", "--", "true", optional=False)
    if refused.returncode == 0:
        assert refused.stderr == ""  # they hold
        return
    assert refused.returncode == 125
    assert refused.stderr.startswith(
        "sandbox: cgroup: nothing here can hold memory_bytes = 2147483648, pids = 256, cpu_percent = 200: "
    )
    assert "python -m sandbox run: --optional cgroup" in refused.stderr
    with by.start("run", "--optional", "cgroup", "--", "true", optional=False) as allowed:
        _, told = allowed.communicate(timeout=TIMEOUT_S)
    assert allowed.returncode == 0
    assert told.startswith("sandbox: not limited, as optional_layers allows: memory_bytes, pids, cpu_percent. ")


def test_the_doctor_tries_our_own_filter_and_a_whole_sandbox_and_tells_what_is_no_layer(by: Maker) -> None:
    done = by.call("doctor", "--json")
    layers = {layer["name"]: layer for layer in json.loads(done.stdout)}
    assert layers["libseccomp"]["enforced"], layers
    assert layers["a sandbox"]["enforced"], layers
    assert layers["landlock files"]["enforced"] == (landlock.version() >= landlock.MINIMUM)
    assert layers["landlock scopes"]["enforced"] == (landlock.version() >= landlock.SCOPES_SINCE)
    assert layers["apparmor"]["enforced"] == Path("/sys/kernel/security/apparmor").exists()
    conditions = {name for name, layer in layers.items() if layer["condition"]} - {"user namespace"}
    assert conditions == {"kernel", "libseccomp", "pidfd", "close_range", "other groups", "apparmor", "yama", *WAYS}
    taken = [name for name in WAYS if "(this one is taken)" in layers[name]["how"]]
    assert taken == ["way: service" if by.uid == 0 else "way: namespaces"]
    assert layers["other groups"]["enforced"]


def test_the_doctor_tells_that_the_groups_of_an_ordinary_user_stay(by: Maker) -> None:
    if by.uid == 0 or os.geteuid() != 0:
        pytest.skip("needs root, to start an ordinary user with another group")
    interpreter = tuple("--groups=34567" if word == "--clear-groups" else word for word in by.interpreter)
    done = by._replace(interpreter=interpreter).call("doctor", "--json")
    layers = {layer["name"]: layer for layer in json.loads(done.stdout)}
    assert not layers["other groups"]["enforced"]
    assert "34567" in layers["other groups"]["how"]
