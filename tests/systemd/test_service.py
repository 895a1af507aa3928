"""The units on a real systemd."""

from __future__ import annotations

import pytest

from tests.support.guest import Guest

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_machine_is_what_it_should_be(machine: Guest) -> None:
    assert machine.run("systemctl is-system-running --wait").stdout == "running\n"
    assert machine.check("stat -fc %T /sys/fs/cgroup") == "cgroup2fs\n"
