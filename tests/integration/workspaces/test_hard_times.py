"""Views of workspaces when the daemon is killed, when it is an ordinary user's, and when the task means harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec, WorkspaceMode
from supervisord_agents.errors import ErrorCode, SupervisorError
from tests.support.daemon import ROOT, DaemonProcess
from tests.support.ordinary_daemon import showing
from tests.support.sandbox import ORDINARY, reachable_interpreter
from tests.support.views import ended, shell

FILES = 400
VIEWS = [WorkspaceMode.COPY, WorkspaceMode.OVERLAY]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    (made / "old").write_text("one\n")
    return made


# Kills


def staged(daemon: DaemonProcess, workspace: Path, task: str) -> bool:
    return (workspace / f".agent-supervisor-{task}" / "new-5").exists()


def decided(daemon: DaemonProcess, workspace: Path, task: str) -> bool:
    intent = daemon.state / "changes" / task / "intent"
    return intent.exists() and intent.stat().st_size > 0


def begun(daemon: DaemonProcess, workspace: Path, task: str) -> bool:
    return (workspace / "file0").read_text() != "one\n"


@pytest.mark.parametrize("moment", [staged, decided, begun])
async def test_the_daemon_is_killed_while_changes_are_applied(
    daemon: DaemonProcess, workspace: Path, moment: Callable[[DaemonProcess, Path, str], bool]
) -> None:
    for number in range(FILES):
        (workspace / f"file{number}").write_text("one\n")
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, "for f in file*; do echo two > $f; done; rm old", WorkspaceMode.OVERLAY))
        assert (await client.changes(task)).count == FILES + 1
        applying = asyncio.create_task(client.apply(task))
        while not moment(daemon, workspace, task) and not applying.done():
            await asyncio.sleep(0)
        daemon.kill()
        with contextlib.suppress(SupervisorError):
            await applying
    await daemon.start()
    async with daemon.client() as client:
        state = (await client.changes(task)).state
        contents = {(workspace / f"file{number}").read_text() for number in range(FILES)}
        assert (state, contents, (workspace / "old").exists()) in [("applied", {"two\n"}, False), ("kept", {"one\n"}, True)]
        assert not list(workspace.glob(".agent-supervisor-*"))
        if state == "kept":
            await client.apply(task)
            assert (workspace / "file7").read_text() == "two\n"


@pytest.mark.parametrize("mode", VIEWS)
async def test_the_daemon_is_killed_before_the_changes_are_collected(
    daemon: DaemonProcess, workspace: Path, mode: WorkspaceMode
) -> None:
    """The worker goes on without it, and the next daemon has what it did."""
    await daemon.start()
    gate = workspace / "gate"
    async with daemon.client() as client:
        script = "echo new > file; until test -e /workspace/never -o -e file2; do echo x > file2; sleep 0.2; done"
        task = (await client.submit([shell(workspace, script, mode)])).tasks[0]
        while not list((daemon.state / "views").glob(f"{task}.*/*/**/file2")):
            await asyncio.sleep(0.01)
    daemon.kill()
    assert not gate.exists()
    await daemon.start()
    async with daemon.client() as client:
        assert (await client.wait([task], timeout_s=60)).done
        assert {change.path for change in (await client.changes(task)).changes} == {"file", "file2"}


# An ordinary user


@pytest.fixture
def ordinary() -> Iterator[DaemonProcess]:
    if os.geteuid() != 0:
        pytest.skip("the tests were not started by root, and so all of them are of an ordinary user")
    become = ("setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups")
    home = Path(tempfile.mkdtemp(prefix="workspaces-ordinary-"))
    home.chmod(0o755)
    # An installation that he can reach, with the packages of this one.
    packages, interpreter = sysconfig.get_paths()["purelib"], reachable_interpreter(become)
    subprocess.run([interpreter, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    own = next((home / "venv" / "lib").glob("python*/site-packages"))
    (own / "packages.pth").write_text(f"{packages}\n{ROOT}\n")
    shown = showing(packages, ROOT / "sandbox", ROOT / "supervisord_agents")
    process = DaemonProcess(home, f"[sandbox]\nprofile = 'here'\n{shown}")
    os.chown(home, ORDINARY, ORDINARY)
    start = "from supervisord_agents.daemon.app import main; raise SystemExit(main())"
    process.argv = [*become, str(home / "venv" / "bin" / "python"), "-I", "-c", start]
    process.environment |= {"HOME": str(home)}
    yield process
    process.close()
    shutil.rmtree(home)


def commit(workspace: Path) -> None:
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(workspace), *words], check=True)


@pytest.mark.parametrize("mode", [*VIEWS, WorkspaceMode.GIT_WORKTREE])
async def test_an_ordinary_user_has_every_mode(ordinary: DaemonProcess, mode: WorkspaceMode) -> None:
    workspace = ordinary.directory / "project"
    workspace.mkdir()
    (workspace / "old").write_text("one\n")
    (workspace / "gone").write_text("gone\n")
    if mode is WorkspaceMode.GIT_WORKTREE:
        commit(workspace)
    for path in (workspace, *workspace.rglob("*")):
        os.chown(path, ORDINARY, ORDINARY)
    await ordinary.start()
    async with ordinary.client() as client:
        task = await ended(client, shell(workspace, "echo two > old; rm gone; mkdir -p deep/er; echo x > deep/er/file", mode))
        told = {(change.what, change.path) for change in (await client.changes(task)).changes if change.kind == "file"}
        assert told == {("modified", "old"), ("deleted", "gone"), ("added", "deep/er/file")}
        await client.apply(task)
    if mode is not WorkspaceMode.GIT_WORKTREE:
        assert (workspace / "old").read_text() == "two\n"
        assert sorted(os.listdir(workspace)) == ["deep", "old"]
    assert os.listdir(ordinary.state / "views") == []


# Harm

HARM = """
ln -s /etc evil && ln -s ../../../../../../etc/passwd up && ln -s / root && mkfifo fifo
i=0; d=.; while [ $i -lt 300 ]; do d=$d/d; mkdir $d; i=$((i+1)); done
truncate -s 100M huge; echo x > closed; chmod 0 closed; mkdir shut; echo y > shut/in; chmod 0 shut
printf x > "$(printf 'a\\nb\\033[31m')"; ln old hard; mkdir -p .git/hooks; echo 'touch /hacked' > .git/hooks/post-commit
python3 -c "open(b'\\xff\\xfe', 'w')"
rm -f old; ln -s /etc/shadow old
"""


@pytest.mark.parametrize("mode", VIEWS)
async def test_a_hostile_tree_reaches_nothing_outside(daemon: DaemonProcess, workspace: Path, mode: WorkspaceMode) -> None:
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, HARM, mode))
        reply = await client.changes(task)
        told = {change.path: change for change in reply.changes}
        assert told["evil"].target == "/etc"
        assert told["old"].kind == "link"
        assert "root:" not in reply.diff
        assert "closed" in told
        assert told["closed"].mode == 0
        assert {"shut", "shut/in"} <= set(told)
        assert told["shut"].mode == 0
        assert told[".git/hooks/post-commit"].protected
        assert "\\xff\\xfe" in told
        assert {"fifo"} <= {note.path for note in reply.left_out}
        assert any("deeper than" in note.why for note in reply.left_out)
        shown = daemon.agentctl("changes", task)
        assert "\x1b" not in shown.stdout
        with pytest.raises(SupervisorError) as refused:
            await client.apply(task)
        assert refused.value.code == ErrorCode.SANDBOX_DENIED
        assert ".git/hooks/post-commit" in refused.value.message
        assert sorted(os.listdir(workspace)) == ["old"]
        await client.apply(task, protected=True)
        assert os.readlink(workspace / "old") == "/etc/shadow"
        assert (workspace / "huge").stat().st_size == 100 << 20
        assert (workspace / "shut").stat().st_mode & 0o7777 == 0
    (workspace / "shut").chmod(0o700)  # for whoever clears up


@pytest.mark.parametrize("mode", VIEWS)
async def test_a_link_that_was_laid_meanwhile_is_not_followed(
    daemon: DaemonProcess, workspace: Path, tmp_path: Path, mode: WorkspaceMode
) -> None:
    (workspace / "inner").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, "echo x > inner/file", mode))
        (workspace / "inner").rmdir()
        (workspace / "inner").symlink_to(elsewhere)
        with pytest.raises(SupervisorError, match="inner/file: a symbolic link is in the way"):
            await client.apply(task)
    assert os.listdir(elsewhere) == []


async def test_too_much_for_a_copy_is_refused_with_a_hint(daemon: DaemonProcess, workspace: Path) -> None:
    daemon.config.write_text("[workspaces]\ncopy_limit_bytes = 100\nmode = 'copy'\n")
    (workspace / "large").write_bytes(bytes(101))
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, TaskSpec(input={"argv": ["true"]}, workspace=str(workspace)), State.FAILED)
        error = (await client.result(task)).result.error
        assert error is not None
        assert error.code == "INVALID"
        assert "copy_limit_bytes" in error.hint
        with pytest.raises(SupervisorError) as refused:  # once it is known that there is nothing
            await client.changes(task)
        assert refused.value.code == ErrorCode.NOT_FOUND
    assert os.listdir(daemon.state / "views") == []


async def test_a_stranger_is_told_nothing(daemon: DaemonProcess, workspace: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: two users")
    daemon.config.write_text(f"[daemon]\nallowed_uids = [{ORDINARY}]\n")
    daemon.directory.chmod(0o755)
    await daemon.start()
    async with daemon.client() as client:
        task = await ended(client, shell(workspace, "echo secret > file", WorkspaceMode.COPY))
    daemon.socket.chmod(0o666)
    for parent in daemon.socket.parents:
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    code = (
        "import asyncio, pathlib, sys\nfrom supervisord_agents.rpc.client import Client\n"
        "async def main():\n    client = await Client.connect(pathlib.Path(sys.argv[1]), name='t', timeout_s=20.0)\n"
        "    try:\n        print(await client.changes(sys.argv[2]))\n"
        "    except Exception as error:\n        print(error.code, error)\n    await client.aclose()\nasyncio.run(main())\n"
    )
    become = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    argv = [*become, sys.executable, "-c", code, str(daemon.socket), task]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "Permission denied" in done.stderr:
        pytest.skip(f"user {ORDINARY} cannot run {sys.executable}")
    assert done.stdout.startswith("FORBIDDEN"), done
