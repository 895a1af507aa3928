"""Tasks in views of a workspace, by the real daemon: the workspace stays as it is until somebody applies the changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, WorkspaceMode
from supervisord_agents.errors import ErrorCode, SupervisorError
from supervisord_agents.wire.changes import ChangesReply
from tests.support.daemon import DaemonProcess
from tests.support.views import ended, shell

OWNER = 23456
VIEWS = [WorkspaceMode.COPY, WorkspaceMode.OVERLAY]
WORK = """
echo two > old && echo fresh > added && rm gone && chmod +x script && mv a.txt inner/b.txt && mkdir made && ln -s old made/link
printf 'a\\0b' > image && rm -r whole && echo odd > "$(printf 'new\\nline')" && mkfifo pipe && touch same
"""
LISTED = {
    ("added", "added"),
    ("added", "image"),
    ("added", "made"),
    ("added", "made/link"),
    ("added", "new\nline"),
    ("deleted", "gone"),
    ("deleted", "whole"),
    ("deleted", "whole/file"),
    ("mode", "script"),
    ("modified", "old"),
    ("renamed", "inner/b.txt"),
}


@pytest.fixture(params=[0, OWNER] if os.geteuid() == 0 else [os.geteuid()], ids="owner{}".format)
def workspace(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    made = tmp_path / "project"
    for directory in (made, made / "inner", made / "whole"):
        directory.mkdir()
    for name in ("old", "gone", "script", "same", "whole/file"):
        (made / name).write_text("one\n" if name == "old" else f"{name}\n")
    (made / "a.txt").write_text("the same content\n")
    if os.geteuid() == 0:
        for path in (made, *made.rglob("*")):
            os.chown(path, request.param, request.param)
    return made


def numbers(workspace: Path) -> dict[Path, tuple[int, ...]]:
    """All that would tell of a change."""
    found = {path: path.lstat() for path in workspace.rglob("*")}
    return {path: (info.st_ino, info.st_mode, info.st_mtime_ns, info.st_ctime_ns) for path, info in found.items()}


def listed(reply: ChangesReply) -> set[tuple[str, str]]:
    return {(change.what, change.path) for change in reply.changes}


@pytest.mark.parametrize("mode", VIEWS)
async def test_changes_are_listed_and_applied(daemon: DaemonProcess, workspace: Path, mode: WorkspaceMode) -> None:
    await daemon.start()
    owner = workspace.stat().st_uid
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, WORK, mode))
        assert (workspace / "old").read_text() == "one\n"
        assert sorted(os.listdir(workspace)) == ["a.txt", "gone", "inner", "old", "same", "script", "whole"]
        reply = await client.changes(task)
        assert listed(reply) == LISTED
        assert [(note.path, note.why) for note in reply.left_out] == [("pipe", "it is neither file, directory nor link")]
        assert reply.conflicts == []
        assert (reply.state, reply.count) == ("kept", len(LISTED))
        assert "--- a/old\n+++ b/old\n@@ -1 +1 @@\n-one\n+two\n" in reply.diff
        assert "rename from a.txt\nrename to inner/b.txt\n" in reply.diff
        assert 'diff --git "a/new\\nline" "b/new\\nline"\nnew file mode 100644\n' in reply.diff
        assert {change.path for change in reply.changes if change.binary} == {"image"}
        assert (await client.apply(task)).count == len(LISTED)
        assert (workspace / "old").read_text() == "two\n"
        assert (workspace / "inner" / "b.txt").read_text() == "the same content\n"
        assert os.readlink(workspace / "made" / "link") == "old"
        assert os.access(workspace / "script", os.X_OK)
        assert sorted(os.listdir(workspace)) == ["added", "image", "inner", "made", "new\nline", "old", "same", "script"]
        assert {path.lstat().st_uid for path in workspace.rglob("*")} == {owner}
        assert (await client.changes(task)).state == "applied"
        with pytest.raises(SupervisorError, match="were applied already"):
            await client.apply(task)
    assert os.listdir(daemon.state / "views") == []


@pytest.mark.parametrize("mode", VIEWS)
async def test_a_conflict_is_named_and_nothing_is_applied(daemon: DaemonProcess, workspace: Path, mode: WorkspaceMode) -> None:
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, WORK, mode))
        (workspace / "old").write_text("mine\n")
        (workspace / "added").write_text("mine too\n")
        (workspace / "whole" / "more").write_text("and this\n")
        before = numbers(workspace)
        with pytest.raises(SupervisorError) as refused:
            await client.apply(task)
        assert refused.value.code == ErrorCode.CONFLICT
        for said in ("old: it was changed", "added: there is something", "whole: it holds 'more'"):
            assert said in refused.value.message
        assert numbers(workspace) == before
        reply = await client.changes(task)
        assert {note.path for note in reply.conflicts} == {"old", "added", "whole"}
        assert reply.state == "kept"
        assert (await client.discard(task)).count == len(LISTED)
        assert (await client.changes(task)).state == "discarded"


@pytest.mark.parametrize("mode", VIEWS)
async def test_a_failed_task_keeps_its_changes_and_the_next_attempt_begins_anew(
    daemon: DaemonProcess, workspace: Path, mode: WorkspaceMode
) -> None:
    await daemon.start()
    async with daemon.client() as client:
        script = 'test ! -e trace; echo "$AGENT_SUPERVISOR_TASK" > trace; false'
        task = await ended(client, shell(workspace, script, mode, max_retries=1, backoff_s=0.01), State.DEAD)
        reply = await client.changes(task)
        assert (listed(reply), reply.attempt) == ({("added", "trace")}, 2)


async def test_agentctl_shows_applies_and_discards(daemon: DaemonProcess, workspace: Path) -> None:
    await daemon.start()
    submitted = daemon.agentctl(
        "submit", "--workspace", str(workspace), "--workspace-mode", "overlay", "--wait", "--", "sh", "-c", "echo new > file"
    )
    assert submitted.returncode == 0, submitted.stderr
    task = submitted.stderr.split()[1]
    shown = daemon.agentctl("changes", task)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("A file\n\ndiff --git a/file b/file\nnew file mode 100644\n--- /dev/null\n+++ b/file\n")
    assert "1 change to" in shown.stderr
    assert daemon.agentctl("changes", "--list", task).stdout == "A file\n"
    applied = daemon.agentctl("apply", task)
    assert (applied.returncode, applied.stderr) == (0, "1 change applied\n")
    assert (workspace / "file").read_text() == "new\n"
    again = daemon.agentctl("discard", task)
    assert again.returncode == 2
    assert "were applied already" in again.stderr


@pytest.mark.parametrize("mode", VIEWS)
async def test_what_the_profile_protects_is_changed_in_a_view_and_asked_about(
    daemon: DaemonProcess, workspace: Path, mode: WorkspaceMode
) -> None:
    own = '[profiles.mine]\nextends = "agent"\nprotect = ["script"]\nunprotect = [".envrc"]\n'
    daemon.config.write_text(f'[sandbox]\nprofile = "mine"\n{own}')
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, "echo new > script && echo new > .envrc", mode))
        reply = await client.changes(task)
        assert {change.path: change.protected for change in reply.changes} == {"script": True, ".envrc": False}
        with pytest.raises(SupervisorError, match="script") as refused:
            await client.apply(task)
        assert refused.value.code == ErrorCode.SANDBOX_DENIED
        assert (workspace / "script").read_text() == "script\n"
        await client.apply(task, protected=True)
        assert (workspace / "script").read_text() == "new\n"
