"""docs/agentctl.md does what it says: its tour runs and its graphs are submitted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.agentctl import PROGRAM, Agentctl

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "agentctl.md").read_text(encoding="utf-8")


def block(label: str) -> str:
    """The one code block with this label."""
    (found,) = re.findall(rf"^```{label}\n((?:.*\n)*?)```", TEXT, re.MULTILINE)
    return str(found)


def test_the_tour_runs(agentctl: Agentctl) -> None:
    path = f"{Path(PROGRAM).parent}:{agentctl.environment['PATH']}"
    script = f"set -euo pipefail\n{block('sh tour')}"
    done = subprocess.run(
        ["bash", "-c", script], env={**agentctl.environment, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once\n") == 2
    assert done.stdout.endswith("\n2\n"), "two tasks: the key gave the first one again"


@pytest.mark.parametrize("form", ["json", "toml"])
def test_the_graphs_run(agentctl: Agentctl, form: str) -> None:
    (agentctl.directory / f"graph.{form}").write_text(block(f"{form} graph"))
    ids = agentctl.submit("--file", f"graph.{form}")
    agentctl("wait", *ids)
    states = {task.partition(".")[2]: agentctl.document("show", task)["task"]["state"] for task in ids}
    expected = {
        "json": {"fetch": "succeeded", "count": "succeeded", "tidy": "succeeded"},
        "toml": {"fetch": "succeeded", "count": "succeeded", "other": "failed"},
    }
    assert states == expected[form]
