"""A task on a checkout of the last commit: what it did is one commit on a branch of its own, and nothing of it runs outside."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec, WorkspaceMode
from supervisord_agents.errors import SupervisorError
from tests.support.daemon import DaemonProcess
from tests.support.views import ended, shell

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
OWNER = 23456 if os.geteuid() == 0 else os.geteuid()
IDENTITY = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main")
WORK = """
git log --format=%s > said && test "$(git status --porcelain)" = '?? said'
git -c user.name=w -c user.email=w@example.org commit -qam own --allow-empty
echo two > old && rm gone && mkdir sub && echo new > 'sub/a b' && mv moved sub/moved && chmod +x tool && rm dir/file && rmdir dir
ln -s old link && rm kind && mkdir kind && echo x > kind/file && touch noise.o ':(top)*'
mkdir -p .git/hooks && printf '#!/bin/sh\\ntouch %s/hacked\\n' "$HOME" > .git/hooks/reference-transaction && chmod +x .git/hooks/*
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    (made / "dir").mkdir(parents=True)
    for name in ("old", "gone", "moved", "tool", "dir/file", "kind"):
        (made / name).write_text(f"{name}: one\n")
    (made / ".gitignore").write_text("*.o\n")
    git(made, "init", "-q")
    git(made, "add", ".")
    git(made, "commit", "-qm", "first")
    (made / "old").write_text("not committed\n")
    if os.geteuid() == 0:
        for path in (made, *made.rglob("*")):
            os.chown(path, OWNER, OWNER, follow_symlinks=False)
    tmp_path.parent.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)
    tmp_path.chmod(0o755)
    return made


def git(directory: Path, *words: str) -> str:
    argv = ["git", *IDENTITY, "-c", "safe.directory=*", "-C", str(directory), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def task(workspace: Path, script: str) -> TaskSpec:
    return shell(workspace, script, WorkspaceMode.GIT_WORKTREE)


async def test_what_was_done_becomes_one_commit_on_a_branch(daemon: DaemonProcess, workspace: Path) -> None:
    await daemon.start()
    head = git(workspace, "rev-parse", "HEAD").strip()
    async with daemon.client() as client:
        name = await ended(client, task(workspace, WORK))
        reply = await client.changes(name)
        assert {(change.what, change.path) for change in reply.changes} == {
            ("added", ":(top)*"),
            ("added", "kind/file"),
            ("added", "link"),
            ("added", "said"),
            ("added", "sub/a b"),
            ("deleted", "dir/file"),
            ("deleted", "gone"),
            ("deleted", "kind"),
            ("mode", "tool"),
            ("modified", "old"),
            ("renamed", "sub/moved"),
        }
        assert [(note.path, note.why) for note in reply.left_out] == [("noise.o", "it is ignored by git")]
        assert "-old: one\n+two\n" in reply.diff
        assert (await client.apply(name)).count == 11
    assert (workspace / "old").read_text() == "not committed\n"
    branch = f"agent/{name}"
    assert git(workspace, "rev-parse", f"{branch}^").strip() == head
    assert git(workspace, "rev-parse", "HEAD").strip() == head
    assert git(workspace, "show", f"{branch}:sub/a b") == "new\n"
    assert git(workspace, "show", f"{branch}:said") == "first\n"
    listed = git(workspace, "ls-tree", "-r", "-z", branch).split("\0")
    assert sorted(line.split("\t")[1] for line in listed if line) == sorted(
        [".gitignore", ":(top)*", "kind/file", "link", "old", "said", "sub/a b", "sub/moved", "tool"]
    )
    assert {line.split()[0] for line in listed if line.endswith(("\ttool", "\tlink"))} == {"100755", "120000"}
    git(workspace, "fsck", "--strict")
    assert {path.lstat().st_uid for path in workspace.rglob("*")} == {OWNER}


@pytest.mark.parametrize(
    "setting", ["core.fsmonitor", "core.hooksPath", "core.sshCommand", "core.pager", "core.alternateRefsCommand"]
)
async def test_settings_and_hooks_of_the_repository_are_not_run(daemon: DaemonProcess, workspace: Path, setting: str) -> None:
    """A worker in the directory itself may have laid them there earlier."""
    trap, trace = workspace / "trap", workspace.parent / "sprung"
    trace.touch()
    trace.chmod(0o666)
    hooks = workspace / "trap-hooks"
    hooks.mkdir()
    for path in (trap, hooks / "reference-transaction", workspace / ".git" / "hooks" / "reference-transaction"):
        path.write_text(f"#!/bin/sh\necho sprung >> {trace}\ncat > /dev/null\n")
        path.chmod(0o755)
    git(workspace, "config", setting, str(hooks if setting == "core.hooksPath" else trap))
    await daemon.start()
    async with daemon.client() as client:
        name = await ended(client, task(workspace, "echo two > old"))
        await client.apply(name)
    assert git(workspace, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "show", f"agent/{name}:old") == "two\n"
    assert trace.read_text() == ""


async def test_a_workspace_without_a_repository_of_its_own_is_refused(daemon: DaemonProcess, workspace: Path) -> None:
    shutil.move(workspace / ".git", workspace.parent / "elsewhere")
    (workspace / ".git").symlink_to(workspace.parent / "elsewhere")
    await daemon.start()
    async with daemon.client() as client:
        name = await ended(client, task(workspace, "true"), State.FAILED)
        error = (await client.result(name)).result.error
        assert error is not None
        assert error.code == "SANDBOX_DENIED"
        assert "not the top directory of a git repository of its own" in error.message


async def test_a_branch_of_that_name_is_left_alone(daemon: DaemonProcess, workspace: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        name = await ended(client, task(workspace, "echo two > old"))
        git(workspace, "branch", f"agent/{name}")
        before = git(workspace, "rev-parse", f"agent/{name}")
        with pytest.raises(SupervisorError, match="there is a branch"):
            await client.apply(name)
        assert git(workspace, "rev-parse", f"agent/{name}") == before
        assert (await client.changes(name)).state == "kept"
