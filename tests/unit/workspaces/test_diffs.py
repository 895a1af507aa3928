"""Diffs as git takes them, whatever the contents and names; bounded in size and time."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.workspaces import diffs
from supervisord_agents.workspaces.diffs import Diff, diff, of_workspace, quoted
from supervisord_agents.workspaces.protected import is_protected
from tests.support.trees import Project, Tree, make, opened, read


def made(directory: Path, before: Tree, after: Tree, limit: int = 1 << 20) -> tuple[Project, Diff]:
    project = Project(directory)
    make(project.workspace, before)
    project.begin()
    make(project.view, after)
    changes = project.changes()
    return project, diff(changes, of_workspace(opened(project.workspace)), project.store(), limit)[1]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_applies_it(tmp_path: Path) -> None:
    before: Tree = {"a": ("one\ntwo\nthree\n", 0o644), "no end": ("x", 0o644), "gone": ("g\n", 0o644), "moved": ("m\n", 0o644)}
    after: Tree = {
        "a": ("one\n2\r\nthree\x0b\n", 0o755),
        "no end": ("y", 0o644),
        "tab\there": ("t\n", 0o644),
        "é": ("\u2028\n", 0o644),
        "dir": None,
        "dir/moved": ("m\n", 0o644),
    }
    project, found = made(tmp_path, before, after)
    subprocess.run(["git", "apply", "-"], input=found.text.encode(), cwd=project.workspace, check=True)
    assert read(project.workspace) == after
    assert not found.cut


def test_it_is_cut_at_the_limit(tmp_path: Path) -> None:
    _, found = made(tmp_path, {}, {f"f{number}": ("x\n" * 100, 0o644) for number in range(10)}, limit=1000)
    assert found.cut
    assert 0 < len(found.text) <= 1000


def test_what_is_hard_to_compare_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffs, "FILE_S", 0.2)
    lines = [f"{number % 150}\n" for number in range(60_000)]
    before, after = "".join(lines), "".join(reversed(lines))
    began = time.monotonic()
    _, found = made(tmp_path, {"f": (before, 0o644)}, {"f": (after, 0o644)})
    assert "too different" in found.text
    assert time.monotonic() - began < 30


def test_binary_files_are_named_and_not_shown(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.begin()
    (project.view / "image").write_bytes(b"\0\xff")
    (project.view / "latin").write_bytes(b"caf\xe9\n")
    changes, found = diff(project.changes(), of_workspace(opened(project.workspace)), project.store(), 10_000)
    assert [change.binary for change in changes] == [True, True]
    assert "Binary files /dev/null and b/image differ\n" in found.text


@settings(max_examples=200)
@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_a_quoted_path_is_one_printable_line(path: bytes) -> None:
    assert quoted(path).isprintable()
    assert quoted(path).isascii()


@pytest.mark.parametrize(
    ("path", "protected"),
    [
        (b".git/hooks/pre-commit", True),
        (b".git/config", True),
        (b"sub/.git/hooks/x", True),
        (b".GIT/Hooks/x", True),
        (b".envrc", True),
        (b"a/.bashrc", True),
        (b".github/workflows/ci.yml", True),
        (b".vscode", True),
        (b"deep/.vscode/tasks.json", True),
        (b".github", True),
        (b".git", True),
        (b"sub/.git", True),
        (b".git/commondir", True),
        (b".git/modules/a/b/hooks/post-checkout", True),
        (b".git/modules/a/config", True),
        (b".git/worktrees/one/config.worktree", True),
        (b".git/worktrees/one/commondir", True),
        (b".git/refs/heads/config", False),
        (b".github/CODEOWNERS", False),
        (b".vscodes", False),
        (b".git/modules/a/index", False),
        (b".git/objects/ab/cdef", False),
        (b".git/index", False),
        (b"src/hooks/a.py", False),
        (b"git/config", False),
    ],
)
def test_what_is_protected(path: bytes, protected: bool) -> None:
    assert is_protected(path) is protected


def test_a_profile_says_what_is_protected_for_its_tasks() -> None:
    assert is_protected(b"sub/deploy.sh", ("deploy.sh",))
    assert not is_protected(b".git/commondir", ("deploy.sh",))
    assert not is_protected(b".envrc", ())
    assert is_protected("bau/dämon".encode(), ("bau/dämon",))
