"""What is refused before a sandbox for a local model is made, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast

import pytest

from sandbox import profile
from sandbox.spawner import Spawner
from supervisord_agents.tracker.cell import Cell, ModelMissing, parts


def a_model(directory: Path, *names: str) -> str:
    for name in names:
        (directory / name).write_bytes(b"GGUF")
    return str(directory / names[0])


def a_cell(model: str) -> Cell:
    return Cell(cast(Spawner, None), profile.load("strict"), (), ("/usr",), model, 1_900_065_535)


def without(monkeypatch: pytest.MonkeyPatch, missing: Sequence[str]) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str) -> ModuleSpec | None:
        return None if name in missing else real("json")

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_all_parts_of_a_model_are_shown_and_none_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, ())
    model = a_model(tmp_path, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    binds = {bind.source: bind.writable for bind in a_cell(model).spec().binds}
    assert set(parts(model)) < set(binds)
    assert not any(binds.values())


def test_without_llama_cpp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, ("llama_cpp", "numpy"))
    with pytest.raises(ModelMissing) as caught:
        a_cell(a_model(tmp_path, "m.gguf")).spec()
    assert "lacks llama_cpp and numpy. Run: " in str(caught.value)
    assert "-m pip install 'agent-supervisor[tracker]'" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.gguf", "gone.gguf: No such file"),
        (".", "is no file"),
        ("m-00001-of-00003.gguf", "m-00003-of-00003.gguf: No such file"),
    ],
)
def test_a_model_that_is_not_there_is_named(tmp_path: Path, name: str, says: str) -> None:
    a_model(tmp_path, "m-00001-of-00003.gguf", "m-00002-of-00003.gguf")
    with pytest.raises(ModelMissing) as caught:
        parts(str(tmp_path / name))
    assert says in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="others run the model as themselves")
def test_a_model_that_its_process_could_not_read_is_refused(tmp_path: Path) -> None:
    model = a_model(tmp_path, "m.gguf")
    os.chmod(model, 0o600)
    with pytest.raises(ModelMissing) as caught:
        parts(model)
    assert caught.value.hint == f"Run: chmod o+r {model}"
