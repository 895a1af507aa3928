"""The AppArmor profile of the fork server, by a kernel and a parser that know user namespaces.

Ubuntu's rule that programs without a profile get none is not in this kernel. In its place the user's programs are confined by a
profile that lets them do everything else: what they execute finds its own profile there, too.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from tests.support.guest import Done, Guest, booted

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(1200)]

PROGRAMS = "/opt/agent-supervisor/bin"
USER = "eve"
PARSER = """#!/bin/sh
# That of the next Debian, with its libraries and its abstractions.
lib=/opt/apparmor/usr/lib/x86_64-linux-gnu
exec $lib/ld-linux-x86-64.so.2 --library-path $lib /opt/apparmor/usr/sbin/apparmor_parser \\
    --config-file /dev/null --base /opt/apparmor/etc/apparmor.d --skip-cache "$@"
"""
CONFINED = """abi <abi/4.0>,
profile no-namespaces {
  file rwlkm /**,
  file pix /**,
  capability,
  network,
  unix,
  signal,
  ptrace,
  dbus,
  mqueue,
  mount,
  umount,
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """It keeps user namespaces from one ordinary user."""
    with booted(tmp_path_factory.mktemp("newer"), newer=True) as machine:
        machine.check("/given/systemd/install", timeout_s=900)
        machine.check(f"useradd --create-home --shell /bin/sh {USER} && loginctl enable-linger {USER}")
        machine.wait_for(f"systemctl -q is-active user@$(id -u {USER}).service")
        machine.write("/usr/sbin/apparmor_parser", PARSER)
        machine.check("chmod 755 /usr/sbin/apparmor_parser; mkdir -p /etc/apparmor.d")
        machine.write("/etc/no-namespaces", CONFINED)
        machine.check("apparmor_parser --replace /etc/no-namespaces")
        yield machine


def confined(host: Guest, command: str) -> Done:
    """A command of the user's."""
    environment = f"HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/$(id -u {USER})"
    become = f"printf 'exec no-namespaces' >/proc/self/attr/exec && exec {command}"
    return host.run(f"cd /home/{USER} && runuser -u {USER} -- env {environment} sh -c {shlex.quote(become)}")


def sandbox(host: Guest, words: str) -> Done:
    """`agent-sandbox`, in a scope with limits delegated to it."""
    return confined(host, f"systemd-run --user --scope -q -p Delegate=yes {PROGRAMS}/agent-sandbox {words}")


def taken(doctor: Done) -> list[str]:
    return [layer["name"] for layer in json.loads(doctor.stdout) if "(this one is taken)" in layer["how"]]


def test_without_the_profile_there_are_no_namespaces(host: Guest) -> None:
    assert "unshare failed: Permission denied" in confined(host, "unshare -U true").stderr
    refused = sandbox(host, "run -- true")
    assert refused.code == 125, refused
    assert taken(sandbox(host, "doctor --json")) == ["way: Landlock"]


def test_with_it_there_are_all_layers(host: Guest) -> None:
    done = host.run(f"{PROGRAMS}/agentctl install apparmor")
    assert done.code == 0, done
    assert "agent-sandbox-spawner" in host.check("cat /sys/kernel/security/apparmor/profiles")
    made = sandbox(host, "run -- sh -c 'echo $$ && cat /proc/self/attr/current && ! unshare -U true'")
    assert (made.code, made.stdout) == (0, "2\nagent-sandbox-spawner (unconfined)\n"), made
    doctor = sandbox(host, "doctor --json")
    assert doctor.code == 0, doctor
    assert taken(doctor) == ["way: namespaces"]


def test_other_programs_do_not_gain_by_it(host: Guest) -> None:
    assert "unshare failed: Permission denied" in confined(host, "unshare -U true").stderr
    started = f"{PROGRAMS}/python -c 'import os; os.unshare(0x10000000)'"
    assert confined(host, started).code != 0


def test_removed_it_is_gone(host: Guest) -> None:
    host.check(f"{PROGRAMS}/agentctl install apparmor --remove")
    assert "agent-sandbox-spawner" not in host.check("cat /sys/kernel/security/apparmor/profiles")
    assert sandbox(host, "run -- true").code == 125
