"""A workspace is given to a worker only while it belongs to who submitted the task, and as the directory that was looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.spec import Bind
from supervisord_agents.config import Config
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import SandboxRefused
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.shape import Shaper, still_there

STRANGER = str(os.geteuid() + 4711)


@pytest.fixture
def shaper() -> Shaper:
    return Shaper(Config(), AgentRegistry(Config()))


def task(workspace: Path | str) -> TaskSpec:
    return TaskSpec(input={"argv": ["true"]}, workspace=str(workspace))


def test_the_sandbox_is_told_whose_directory_it_is_given(shaper: Shaper, tmp_path: Path) -> None:
    info = tmp_path.stat()
    shape = shaper.of(task(tmp_path), str(os.geteuid()))
    assert Bind(str(tmp_path), writable=True, owner=(info.st_uid, info.st_gid)) in shaper.sandbox_spec(shape, uid=5000).binds


def test_a_directory_that_changed_hands_since_the_submit_is_refused(shaper: Shaper, tmp_path: Path) -> None:
    with pytest.raises(SandboxRefused, match="does not belong to the user"):
        shaper.of(task(tmp_path), STRANGER)


@pytest.mark.parametrize("workspace", ["", "/nowhere/at/all"])
def test_a_private_or_missing_workspace_is_nobody_s(shaper: Shaper, workspace: str) -> None:
    assert shaper.of(task(workspace), STRANGER).workspace == workspace


def test_a_directory_that_took_the_place_of_another_is_not_the_same(shaper: Shaper, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    shape = shaper.of(task(tmp_path / "work"), "")
    assert still_there(shape)
    (tmp_path / "work").rename(tmp_path / "old")
    assert not still_there(shape)
    (tmp_path / "work").mkdir()
    assert not still_there(shape)
