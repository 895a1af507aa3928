"""Where a host cannot make an overlay, a copy is made instead only if the configuration says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import SandboxError
from sandbox.protected import PROTECTED
from supervisord_agents.config import Workspaces
from supervisord_agents.workers.shape import Shape, identity
from supervisord_agents.workspaces import records
from supervisord_agents.workspaces.keeper import Keeper


class NoOverlays:
    """A fork server of a host without them."""

    without = ""

    async def spawn(self, *_: Any) -> None:
        raise SandboxError("fsopen of overlay: No such device.", step="overlay")


@pytest.mark.parametrize(("fallback", "made"), [("copy", "tree"), ("", "layers")])
async def test_what_is_made_of_an_overlay(tmp_path: Path, fallback: Any, made: str) -> None:
    workspace = tmp_path / "project"
    workspace.mkdir()
    (workspace / "file").write_text("x\n")
    server: Any = NoOverlays()
    keeper = Keeper(tmp_path / "state", Workspaces(overlay_fallback=fallback), server)
    view = tmp_path / "state" / "views" / "g.t.1"
    shape = Shape(
        workspace=str(workspace),
        workspace_id=identity(str(workspace)),
        read_only_paths=(),
        gateway_port=0,
        memory_bytes=0,
        pids=0,
        cpu_percent=0,
        view=str(view),
        mode="overlay",
    )
    await keeper.prepare(shape, PROTECTED)
    assert (view / made).is_dir()
    found = records.read_view(view)
    assert found is not None
    assert found.mode == (fallback or "overlay")
    await keeper.over(shape)
    kept, diff = await keeper.kept("g.t")
    assert (kept.changes, diff) == ([], "")
    assert os.listdir(view.parent) == []
