"""A copy-on-write view of a directory: what is written lies beside it, and nothing inside sees where."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import Bind
from tests.support.sandbox import said

OWNERS = [(23456, 34567), (0, 0), (23456, 0)]
by_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other owners")


def view(tmp_path: Path, owner: tuple[int, int]) -> Bind:
    work, layers = tmp_path / "a, b:c", tmp_path / "layers"
    for path in (work, work / "inner", layers, layers / "upper", layers / "work"):
        path.mkdir()
    (work / "old").write_text("old\n")
    (work / "gone").write_text("gone\n")
    (work / "inner" / "deep").write_text("deep\n")
    if os.geteuid() == 0:
        for path in (work, *work.rglob("*"), layers, *layers.rglob("*")):
            os.chown(path, *owner)
    else:
        owner = (os.geteuid(), os.getegid())
    return Bind(str(work), writable=True, owner=owner, layers=str(layers))


@by_root
@pytest.mark.parametrize("owner", OWNERS, ids=str)
async def test_what_is_written_lies_in_the_upper_layer_alone(spawner: Spawner, tmp_path: Path, owner: tuple[int, int]) -> None:
    bind = view(tmp_path, owner)
    work, upper = Path(bind.source), Path(bind.layers) / "upper"
    (work / "roots").write_text("root's\n")
    os.chown(work / "roots", 0, 0)
    script = (
        f"cd '{bind.source}' && cat old inner/deep && echo new > old && echo more > inner/more && rm gone && mkdir made && ls &&"
        " cat old;"
        "echo no >> roots; mknod trick c 0 0; echo mknod $?"
    )
    printed = await said(spawner, script, bind)
    assert printed.startswith("old\ndeep\ninner\nmade\nold\nroots\nnew\n") or owner[0] == 0
    assert "mknod 0" not in printed
    assert (work / "old").read_text() == "old\n"
    assert (work / "gone").exists()
    assert sorted(os.listdir(work / "inner")) == ["deep"]
    assert (upper / "old").read_text() == "new\n"
    assert (upper / "inner" / "more").read_text() == "more\n"
    info = (upper / "old").stat()
    assert (info.st_uid, info.st_gid) == owner
    whiteout = (upper / "gone").lstat()
    assert stat.S_ISCHR(whiteout.st_mode)
    assert whiteout.st_rdev == 0


@by_root
async def test_the_layers_are_not_to_be_seen_inside(spawner: Spawner, tmp_path: Path) -> None:
    bind = view(tmp_path, OWNERS[0])
    printed = await said(spawner, "ls -A /; find / -xdev -name upper 2>/dev/null; ls /tmp", bind)
    assert "upper" not in printed
    assert "lower" not in printed
    assert "layers" not in printed


@by_root
async def test_a_view_that_cannot_be_made_is_refused_with_a_hint(spawner: Spawner, tmp_path: Path) -> None:
    bind = view(tmp_path, OWNERS[0])
    (Path(bind.layers) / "work").rmdir()
    with pytest.raises(SandboxError, match="no copy-on-write view") as refused:
        await said(spawner, "true", bind)
    assert refused.value.step == "overlay"
    assert "copy" in refused.value.hint


@by_root
@pytest.mark.parametrize("reviewed", [False, True])
async def test_what_is_protected_can_be_changed_in_a_view_that_is_reviewed(
    spawner: Spawner, tmp_path: Path, *, reviewed: bool
) -> None:
    bind = view(tmp_path, OWNERS[0])._replace(reviewed=reviewed)
    work, upper = Path(bind.source), Path(bind.layers) / "upper"
    (work / ".envrc").write_text("mine\n")
    os.chown(work / ".envrc", *OWNERS[0])
    script = f"cd '{bind.source}' && ls -A; echo theirs > .envrc; mkdir .vscode/ && echo made; cat .envrc"
    printed = await said(spawner, script, bind)
    assert (".vscode" in printed.split()) is not reviewed
    assert ("made" in printed.split()) is reviewed
    assert printed.endswith("theirs" if reviewed else "mine")
    assert (work / ".envrc").read_text() == "mine\n"
    assert sorted(os.listdir(work)) == [".envrc", "gone", "inner", "old"]
    assert (upper / ".envrc").exists() is reviewed
