"""What the doctor says of the tracker's models."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from supervisord_agents import config as configuration
from supervisord_agents.cli import checkup_tracker
from supervisord_agents.cli.findings import Finding, Mark

KEY_ENV = "A_KEY_OF_THE_TESTS"
CONFIG = """
[tracker]
backends = {backends}
[tracker.local]
model = "{model}"
gpu_layers = {gpu_layers}
profile = "{profile}"
[tracker.models.mini]
provider = "openai"
model = "gpt"
[gateway.providers.openai]
base_url = "https://example.org/v1"
api_key_env = "A_KEY_OF_THE_TESTS"
input_usd_per_mtok = {price}
[profiles.gpu]
extends = "strict"
devices = ["/dev/nvidia*"]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF and more")
    path.chmod(0o644)
    return path


def found(
    tmp_path: Path, model: Path | str = "/nowhere.gguf", backends: str = '["local"]', profile: str = "strict", **changed: float
) -> dict[str, Finding]:
    """By name."""
    values = {"gpu_layers": 0, "price": 1.0, **changed}
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(backends=backends, model=model, profile=profile, **values))
    return {finding.name: finding for finding in checkup_tracker.findings(configuration.load(path))}


@pytest.fixture(autouse=True)
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that can do it all, but for a GPU."""
    path = tmp_path / "python"
    says(path, "echo 0.3.33 False")
    monkeypatch.setattr("sys.executable", str(path))
    return path


def says(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)


def test_without_models_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert found(tmp_path, backends="[]") == {}


def test_all_that_a_local_model_needs(tmp_path: Path, model: Path) -> None:
    report = found(tmp_path, model)
    assert {name: (finding.mark, finding.what) for name, finding in report.items()} == {
        "model": (Mark.OK, f"{model}, 13 B"),
        "llama_cpp": (Mark.OK, "version 0.3.33"),
    }


def test_a_model_that_is_none(tmp_path: Path, model: Path) -> None:
    gone = found(tmp_path)["model"]
    assert (gone.mark, "/nowhere.gguf: No such file" in gone.what) == (Mark.MISSING, True)
    model.write_bytes(b"PK")
    assert (found(tmp_path, model)["model"].mark, found(tmp_path, model)["model"].what) == (
        Mark.MISSING,
        f"{model} is no GGUF file",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only the process of root's daemon has another user")
def test_a_model_that_the_user_of_the_sandbox_cannot_read(tmp_path: Path, model: Path) -> None:
    model.chmod(0o600)
    finding = found(tmp_path, model)["model"]
    assert (finding.mark, finding.remedy) == (Mark.MISSING, f"Run: chmod o+r {model}")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "echo 'ModuleNotFoundError: No module named llama_cpp' >&2; exit 1",
            "cannot be imported: ModuleNotFoundError: No module",
        ),
        ("kill -ILL $$", "its import is ended by signal 4"),
    ],
)
def test_llama_cpp_that_is_not_there_or_for_another_processor(tmp_path: Path, python: Path, line: str, what: str) -> None:
    says(python, line)
    finding = found(tmp_path)["llama_cpp"]
    assert finding.mark is Mark.MISSING
    assert what in finding.what
    assert "pip install 'agent-supervisor[tracker]'" in finding.remedy


def test_a_gpu_needs_a_build_for_it_and_a_profile_that_grants_it(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = found(tmp_path, gpu_layers=-1)
    assert "built without a GPU" in report["llama_cpp"].what
    assert (report["devices"].mark, report["devices"].what) == (Mark.MISSING, "profile strict grants no GPU")
    says(python, "echo 0.3.33 True")
    monkeypatch.setattr(glob, "glob", lambda pattern: [])
    report = found(tmp_path, gpu_layers=-1, profile="gpu")
    assert report["llama_cpp"].mark is Mark.OK
    assert report["devices"].what == "/dev/nvidia*, which profile gpu grants: there are none"
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidiactl"])
    report = found(tmp_path, gpu_layers=-1, profile="gpu")
    assert (report["devices"].mark, report["devices"].what) == (Mark.OK, "/dev/nvidia0, /dev/nvidiactl")


def test_a_model_at_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)
    without = found(tmp_path, backends='["mini"]')["mini"]
    assert (without.mark, KEY_ENV in without.what) == (Mark.OFF, True)
    monkeypatch.setenv(KEY_ENV, "sk-" + "k" * 20)
    good = found(tmp_path, backends='["mini"]')["mini"]
    assert (good.mark, good.what) == (Mark.OK, "gpt at openai, $0.0041 an answer at the most")
    free = found(tmp_path, backends='["mini"]', price=0.0)["mini"]
    assert (free.mark, "cost_usd_per_day does not bound it" in free.what) == (Mark.OFF, True)
    dear = found(tmp_path, backends='["mini"]', price=1000.0)["mini"]
    assert (dear.mark, dear.what) == (Mark.MISSING, "gpt at openai: an answer may cost $4.0960, a day $1.0000")
