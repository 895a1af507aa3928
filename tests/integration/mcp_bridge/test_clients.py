"""docs/mcp.md shows configurations that real clients accept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.clis import cli
from tests.support.mcp_session import AGENTCTL

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "mcp.md"
FILES = {"opencode": "opencode.json", "gemini": ".gemini/settings.json", "qwen": ".qwen/settings.json"}


def shown(client: str) -> str:
    """The configuration that the document shows for a client."""
    found = re.search(rf"^```(?:json|toml) {client}\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("client", ["opencode", "claude", "gemini", "qwen"])
def test_the_json_is_json(client: str) -> None:
    assert json.loads(shown(client))


def test_the_toml_is_toml() -> None:
    assert tomllib.loads(shown("codex"))["mcp_servers"]["supervisor"] == {"command": "agentctl", "args": ["mcp"]}


@pytest.mark.slow
@pytest.mark.parametrize("client", list(FILES))
def test_the_client_connects(client: str, tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    home.mkdir()
    file = project / FILES[client]
    file.parent.mkdir(parents=True)
    file.write_text(shown(client))
    environment = {
        "PATH": f"{AGENTCTL.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
    }
    listed = subprocess.run(
        [cli(client), "mcp", "list"], cwd=project, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert re.search("supervisor.*connected", listed.stdout + listed.stderr, re.IGNORECASE), listed
