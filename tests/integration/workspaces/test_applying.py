"""Changes are applied all or none: over kills at every point, over races, and whatever trees there are."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.workspaces.applying import Applying
from supervisord_agents.workspaces.changes import Change
from supervisord_agents.workspaces.conflicts import Conflict
from tests.support.trees import Link, Project, Tree, make, opened, read

STAGING = ".agent-supervisor-test"
BEFORE: Tree = {
    "kept": ("kept\n", 0o644),
    "old": ("one\n", 0o644),
    "gone": ("gone\n", 0o644),
    "tool": ("tool\n", 0o644),
    "a": ("renamed\n", 0o644),
    "whole": None,
    "whole/inner": ("inner\n", 0o600),
    "becomes-directory": ("file\n", 0o644),
    "becomes-file": None,
    "becomes-file/x": ("x\n", 0o644),
    "link": Link("kept"),
}
AFTER: Tree = {
    "kept": ("kept\n", 0o644),
    "old": ("two\n", 0o644),
    "tool": ("tool\n", 0o755),
    "new": None,
    "new/b": ("renamed\n", 0o644),
    "new/deep": None,
    "new/deep/file": ("deep\n", 0o640),
    "becomes-directory": None,
    "becomes-directory/y": ("y\n", 0o644),
    "becomes-file": ("now a file\n", 0o644),
    "link": Link("old"),
}


def worked(directory: Path) -> tuple[Project, list[Change]]:
    """A project whose task has made AFTER of BEFORE."""
    project = Project(directory)
    make(project.workspace, BEFORE)
    project.begin()
    make(project.view, AFTER)
    return project, project.changes()


def apply(project: Project, changes: list[Change], between: Callable[[], None] = lambda: None) -> list[Conflict]:
    return _with(project, between, lambda applying: applying.begin(STAGING, changes, project.store()))


def resume(project: Project, between: Callable[[], None] = lambda: None) -> tuple[bool, list[Conflict]]:
    return _with(project, between, lambda applying: applying.resume(STAGING))


def _with(project: Project, between: Callable[[], None], act: Callable[[Applying], object]) -> object:
    workspace, intent = opened(project.workspace), os.open(project.intent, os.O_RDWR)
    try:
        return act(Applying(workspace, intent, between))
    finally:
        os.close(workspace)
        os.close(intent)


class Killer:
    """Ends the process by SIGKILL at a point."""

    def __init__(self, point: int) -> None:
        self._left = point

    def __call__(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def killed(act: Callable[[], object]) -> bool:
    """Whether a child that does this was killed; it has not failed otherwise."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return bool(status)


def test_all_kinds_of_changes_are_applied(tmp_path: Path) -> None:
    project, changes = worked(tmp_path)
    assert apply(project, changes) == []
    assert read(project.workspace) == AFTER


def test_killed_at_every_point_it_is_done_or_not_done(tmp_path: Path) -> None:
    outcomes, point = [], 0
    while True:
        project, changes = worked(tmp_path / str(point))
        if not killed(lambda project=project, changes=changes, point=point: apply(project, changes, Killer(point))):
            break
        applied, conflicts = resume(project)
        assert conflicts == []
        assert read(project.workspace) == (AFTER if applied else BEFORE), point
        outcomes.append(applied)
        point += 1
    assert len(outcomes) > 40
    assert outcomes == sorted(outcomes), "once decided, it stays so"
    assert set(outcomes) == {False, True}


def test_killed_again_while_it_is_finished(tmp_path: Path) -> None:
    project, changes = worked(tmp_path / "whole")
    points = next(point for point in range(1000) if not _runs_to(tmp_path / f"probe{point}", point))
    shutil.rmtree(project.workspace)
    for first in range(points // 2, points):
        project, changes = worked(tmp_path / f"again{first}")
        assert killed(lambda project=project, changes=changes, first=first: apply(project, changes, Killer(first)))
        second = 0
        while killed(lambda project=project, second=second: resume(project, Killer(second))):
            second = (second + 1) % 3
        assert read(project.workspace) == AFTER


def _runs_to(directory: Path, point: int) -> bool:
    project, changes = worked(directory)
    return killed(lambda: apply(project, changes, Killer(point)))


@pytest.mark.parametrize("late", ["old", "gone", "new", "whole/inner"])
def test_a_change_at_the_last_moment_takes_all_back(tmp_path: Path, late: str) -> None:
    """Whatever the moment: what the other has written stays, and everything else is as before, or all is done before it."""
    point, taken_back = 0, 0
    while True:
        project, changes = worked(tmp_path / str(point))
        other = _Other(project.workspace / late, point)
        conflicts = apply(project, changes, other)
        if not other.wrote:
            break
        now = read(project.workspace)
        written = now.pop(late, None)
        if conflicts:
            taken_back += 1
            expected = {path: what for path, what in BEFORE.items() if path != late}
            assert now == expected or any("could not be put back" in one.why for one in conflicts), (point, conflicts)
        if late != "gone" or conflicts:
            assert written in (("other\n", 0o644), AFTER.get(late), None), point
        point += 1
    assert taken_back > 0


class _Other:
    """Somebody who writes a file at a point, by a new file in its place, as editors do."""

    def __init__(self, path: Path, point: int) -> None:
        self._path, self._left, self.wrote = path, point, False

    def __call__(self) -> None:
        if self._left == 0:
            self.wrote = True
            if self._path.parent.is_dir() and not self._path.is_dir():
                temporary = self._path.with_name(".other")
                temporary.write_text("other\n")
                temporary.chmod(0o644)
                temporary.rename(self._path)
        self._left -= 1


NAMES = st.sampled_from(["a", "b", "c\n", "d e", "é"])
FILES = st.tuples(st.sampled_from(["", "x\n", "yy", "same\n"]), st.sampled_from([0o644, 0o755, 0o600]))
LEAVES = FILES | st.builds(Link, st.sampled_from(["a", "../a", "/nowhere"])) | st.none()


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree: Tree = {}
    for _ in range(draw(st.integers(0, 7))):
        parents = ["", *(f"{path}/" for path, what in tree.items() if what is None)]
        path = draw(st.sampled_from(parents)) + draw(NAMES)
        if path not in tree:
            tree[path] = draw(LEAVES)
    return tree


@settings(max_examples=150, deadline=None)
@given(trees(), trees())
def test_what_is_applied_is_what_the_task_made(before: Tree, after: Tree) -> None:
    with tempfile.TemporaryDirectory() as directory:
        project = Project(Path(directory) / "p")
        make(project.workspace, before)
        project.begin()
        make(project.view, after)
        assert apply(project, project.changes()) == []
        assert read(project.workspace) == after


@settings(max_examples=150, deadline=None)
@given(trees(), trees(), trees())
def test_with_changes_of_others_it_is_refused_whole_or_both_are_there(before: Tree, after: Tree, others: Tree) -> None:
    with tempfile.TemporaryDirectory() as directory:
        project = Project(Path(directory) / "p")
        make(project.workspace, before)
        project.begin()
        make(project.view, after)
        changes = project.changes()
        make(project.workspace, others)
        conflicts = apply(project, changes)
        now = read(project.workspace)
        if conflicts:
            assert now == others
            return
        for path in {*before, *after, *others}:
            task_did, others_did = before.get(path, 0) != after.get(path, 0), before.get(path, 0) != others.get(path, 0)
            expected = after.get(path, 0) if task_did else others.get(path, 0)
            assert now.get(path, 0) == expected, path
            assert not (task_did and others_did) or after.get(path, 0) == others.get(path, 0), path
