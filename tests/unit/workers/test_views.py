"""How a view of a workspace is given to a worker, by mode, profile and host."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sandbox.spec import Bind
from supervisord_agents.config import Config, Sandbox
from supervisord_agents.core.model import TaskSpec, WorkspaceMode
from supervisord_agents.errors import SandboxRefused
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.shape import LAYERS, TREE, Shape, Shaper

READER = Config(sandbox=Sandbox(profile="reader"), profiles={"reader": {"extends": "agent", "here": "read"}})
PLACEHOLDERS = Config(sandbox=Sandbox(placeholders=True))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture(params=[TREE, LAYERS])
def view(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "view" / request.param).mkdir(parents=True)
    return tmp_path / "view" / request.param


def shaper(config: Config, *, namespaces: bool = True) -> Shaper:
    return Shaper(config, AgentRegistry(config), namespaces=namespaces)


def task(workspace: Path, **fields: WorkspaceMode) -> TaskSpec:
    return TaskSpec(input={"argv": ["true"]}, workspace=str(workspace), **fields)


def shape_of(workspace: Path, view: Path | None = None, config: Config = PLACEHOLDERS) -> Shape:
    shape = shaper(config).of(task(workspace), "")
    return msgspec.structs.replace(shape, view=str(view.parent), mode="some") if view else shape


def bind_of(shape: Shape, config: Config = PLACEHOLDERS) -> Bind:
    (bind,) = (bind for bind in shaper(config).sandbox_spec(shape, uid=5000).binds if bind.place == shape.workspace)
    return bind


def test_a_view_lies_at_the_place_of_the_workspace_and_nothing_in_it_is_protected(workspace: Path, view: Path) -> None:
    bind = bind_of(shape_of(workspace, view))
    assert bind.writable
    assert bind.reviewed
    assert (bind.source, bind.layers) == ((str(view), "") if view.name == TREE else (str(workspace), str(view)))
    assert not bind_of(shape_of(workspace)).reviewed


def test_nothing_is_held_on_the_host_for_a_view(workspace: Path, view: Path) -> None:
    assert shaper(PLACEHOLDERS).kept_from_being_made(shape_of(workspace)) != ()
    assert shaper(PLACEHOLDERS).kept_from_being_made(shape_of(workspace, view)) == ()


def test_a_profile_that_gives_the_workspace_to_be_read_gives_the_view_to_be_read(workspace: Path, view: Path) -> None:
    bind = bind_of(shape_of(workspace, view, READER), READER)
    assert not bind.writable
    assert not bind.layers
    assert bind.source == str(view if view.name == TREE else workspace)


@pytest.mark.parametrize("mode", [mode for mode in WorkspaceMode if mode is not WorkspaceMode.DIR])
def test_without_namespaces_there_are_no_views(workspace: Path, mode: WorkspaceMode) -> None:
    assert shaper(Config(), namespaces=False).of(task(workspace), str(os.geteuid())).workspace == str(workspace)
    with pytest.raises(SandboxRefused, match=f"the workspace mode `{mode}`"):
        shaper(Config(), namespaces=False).of(task(workspace, workspace_mode=mode), str(os.geteuid()))
