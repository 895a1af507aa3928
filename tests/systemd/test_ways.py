"""The ways to a sandbox on a host that keeps user namespaces from ordinary users.

Debian's kernel 6.1 has AppArmor without its restriction of user namespaces, and a switch of its own in place of that:
kernel.unprivileged_userns_clone. With it the first and the third way are tried. No profile can help against that switch: the
second is in test_apparmor.py, and here it is refused and leaves nothing half done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.guest import Done, Guest
from tests.support.service import Service

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(1200)]

PROGRAMS = "/opt/agent-supervisor/bin"
USER = "eve"
MEMORY_HOG = "b=[]\nwhile True: b.append(bytearray(1<<20))"


@pytest.fixture(scope="module")
def host(installed: Service) -> Iterator[Guest]:
    """It keeps user namespaces from ordinary users, of whom there is one."""
    machine = installed.machine
    machine.check("/given/systemd/install", timeout_s=900)  # tests before may have taken it away
    machine.check(f"useradd --create-home --shell /bin/sh {USER} && loginctl enable-linger {USER}")
    machine.wait_for(f"systemctl -q is-active user@$(id -u {USER}).service")
    machine.check("sysctl -qw kernel.unprivileged_userns_clone=0")
    yield machine
    machine.check("sysctl -qw kernel.unprivileged_userns_clone=1")


def sandbox(host: Guest, *words: str, stdin: str = "") -> Done:
    """`agent-sandbox`, by the ordinary user, in a scope of his with limits delegated to him."""
    scope = "systemd-run --user --scope -q -p Delegate=yes"
    command = f"{scope} {PROGRAMS}/agent-sandbox {' '.join(words)}"
    environment = f"HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/$(id -u {USER})"
    return host.run(f"cd /home/{USER} && runuser -u {USER} -- env {environment} {command}", stdin=stdin)


def layers(done: Done) -> dict[str, Any]:
    return {layer["name"]: layer for layer in json.loads(done.stdout)}


def taken(found: dict[str, Any]) -> list[str]:
    return [name for name, layer in found.items() if "(this one is taken)" in layer["how"]]


def test_the_doctor_says_which_way_is_taken(host: Guest) -> None:
    roots = layers(host.run(f"{PROGRAMS}/agent-sandbox doctor --json"))
    assert taken(roots) == ["way: service"]
    assert roots["apparmor"]["how"] == "on; does not restrict user namespaces"
    users = layers(sandbox(host, "doctor", "--json"))
    assert taken(users) == ["way: Landlock"]
    assert not users["user namespace"]["enforced"]
    assert "kernel.unprivileged_userns_clone=1" in users["user namespace"]["remedy"]


def test_the_service_of_root_has_all_layers(host: Guest, service: Service) -> None:
    task = service.submit("sh", "-c", "id -u; cat /proc/1/comm")
    assert service.ended(task)["state"] == "succeeded"
    assert "pid namespace" in service.enforced()


def test_the_profile_is_refused_where_it_cannot_be_loaded_and_leaves_nothing(host: Guest) -> None:
    done = host.run(f"{PROGRAMS}/agentctl install apparmor")
    assert done.code == 6, done
    assert "apparmor_parser" in done.stderr
    assert host.run("ls /usr/local/lib/agent-sandbox /etc/apparmor.d/agent-sandbox-spawner").stdout == ""


def test_without_namespaces_a_user_is_refused_unless_they_may_be_missing(host: Guest) -> None:
    refused = sandbox(host, "run", "--", "true")
    assert refused.code == 125, refused
    assert "this host does not let user" in refused.stderr
    host.check("install -m 600 -o eve /dev/null /home/eve/secret")
    tries = "cat /home/eve/secret; truncate -s 0 /home/eve/secret"
    command = f"'{tries}; echo mine >$TMPDIR/x && cat $TMPDIR/x; setsid sleep 7771 & exit 5'"
    allowed = sandbox(host, "run", "--optional", "namespaces", "--", "sh", "-c", command)
    assert (allowed.code, allowed.stdout) == (5, "mine\n"), allowed
    assert allowed.stderr.count("Permission denied") == 2, allowed
    assert host.run("pgrep -x -f 'sleep 7771'").stdout == ""


def test_its_limits_are_held_by_cgroup_v2(host: Guest) -> None:
    host.write("/home/eve/small.toml", f"memory_bytes = {64 << 20}\npids = 50\noptional_layers = ['namespaces']\n")
    done = sandbox(host, "run", "--profile", "/home/eve/small.toml", "--", "python3", "-", stdin=MEMORY_HOG)
    assert done.code == 137, done
    assert "of memory were needed" in done.stderr


def test_where_namespaces_are_allowed_again_they_are_used(host: Guest) -> None:
    host.check("sysctl -qw kernel.unprivileged_userns_clone=1")
    try:
        done = sandbox(host, "run", "--optional", "namespaces", "--", "cat", "/proc/1/comm")
    finally:
        host.check("sysctl -qw kernel.unprivileged_userns_clone=0")
    assert done.code == 0, done
    assert "without namespaces" not in done.stderr
