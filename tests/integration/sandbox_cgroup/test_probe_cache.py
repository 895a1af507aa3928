"""What an earlier probe has found is used again in the same circumstances, and only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import probe_cache


def start(file: Path) -> tuple[bool, list[str]]:
    """Whether it was tried, and the names of what was found."""
    tried: list[bool] = []
    layers = probe_cache.probed(file, lambda: tried.append(True))
    return bool(tried), [layer.name for layer in layers if layer.enforced]


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def boot(file: Path) -> None:
    found = json.loads(file.read_text())
    found["circumstances"][0] = "another boot"
    file.write_text(json.dumps(found))


def older(file: Path) -> None:
    found: dict[str, Any] = json.loads(file.read_text())
    for layer in found["layers"]:
        del layer["how"]
    file.write_text(json.dumps(found))


@pytest.mark.parametrize("change", [damage, boot, older, Path.unlink])
def test_it_is_tried_again_when_something_has_changed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file = tmp_path / "probe.json"
    first = start(file)
    assert first[0]
    assert start(file) == (False, first[1])
    change(file)
    assert start(file) == first


def test_where_nothing_can_be_written_it_is_tried_each_time(tmp_path: Path) -> None:
    file = tmp_path / "absent" / "probe.json"
    assert start(file)[0]
    assert start(file)[0]
