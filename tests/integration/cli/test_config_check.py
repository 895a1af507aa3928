"""`agentctl config check` finds what the daemon's parts would refuse at their start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGENTCTL = Path(sys.executable).parent / "agentctl"


def check(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    return subprocess.run([AGENTCTL, "config", "check", str(path)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[agents.command]\noptions = { environment_allow = 'LC_*' }", "agents.command.options.environment_allow"),
        ("[agents.command]\noptions = { environment_alow = ['LC_*'] }", "Did you mean `environment_allow`?"),
        ("[agents.python]\noptions = { approval = 'yolo' }", "agents.python.options.approval"),
        ("[gateway]\nallowed_hosts = ['*.org']", "gateway.allowed_hosts"),
        ("[gateway.providers.p]\nbase_url = 'https://u:p@h'", "gateway.providers.p.base_url"),
    ],
)
def test_a_setting_that_its_part_does_not_take_is_named(tmp_path: Path, text: str, says: str) -> None:
    found = check(tmp_path / "config.toml", text)
    assert found.returncode == 1
    assert says in found.stderr


def test_options_that_are_taken_are_fine(tmp_path: Path) -> None:
    found = check(
        tmp_path / "config.toml", "[agents.qwen]\noptions = { approval = 'plan' }\n[gateway]\nallowed_hosts = ['a.example.org']"
    )
    assert (found.returncode, found.stderr) == (0, "")
