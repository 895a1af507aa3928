"""Files of a writable directory that run outside of the sandbox: not to be changed, not to be made, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.protected import PLACEHOLDER_MODE, PROTECTED
from tests.support.sandbox import Maker, line_of

AGENT = ("--profile", "agent")


def project(by: Maker, *, git: bool = True) -> Path:
    """A directory of his with a repository, a hook, and an editor's settings."""
    made = by.directory("project")
    if git:
        repository(made)
    (made / ".vscode").mkdir()
    (made / ".vscode" / "tasks.json").write_text("{}")
    (made / "code").write_text("code")
    give(by, made)
    return made


def repository(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "init", "-q", str(directory)], check=True)
    (directory / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
    (directory / ".git" / "hooks" / "pre-commit").chmod(0o755)


def give(by: Maker, directory: Path) -> None:
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, by.uid, by.uid, follow_symlinks=False)


def tree(directory: Path) -> dict[str, str]:
    """Every path and what it is, but for the objects of repositories."""
    return {
        str(path.relative_to(directory)): path.read_text(errors="replace")
        if path.is_file() and not path.is_symlink()
        else oct(path.lstat().st_mode)
        for path in sorted(directory.rglob("*"))
        if "objects" not in path.parts
    }


def sh(by: Maker, script: str, cwd: Path, *options: str) -> str:
    """What a script said, both ways."""
    done = by.run("sh", "-c", f"exec 2>&1; {script}", options=options or AGENT, cwd=cwd)
    assert "sandbox: " not in done.stderr, done.stderr
    return done.stdout


ATTEMPTS = {
    "write a hook": "echo evil >>.git/hooks/pre-commit",
    "add a hook": "echo evil >.git/hooks/post-commit",
    "remove a hook": "rm -f .git/hooks/pre-commit",
    "move the hooks": "mv .git/hooks x",
    "move the repository": "cp -r .git copy && mv .git old && mv copy .git",
    "remove the repository": "rm -rf .git/hooks .git",
    "write the configuration": "git config core.fsmonitor ./evil",
    "exchange the configuration": "cp .git/config x; echo evil >>x; mv -f x .git/config",
    "link over the configuration": "ln -sf ../code .git/config",
    "configuration of the worktree": "echo evil >.git/config.worktree",
    "write the editor's settings": "echo evil >.vscode/tasks.json",
    "add to the editor's settings": "echo evil >.vscode/launch.json",
    "move the editor's settings": "mv .vscode x; mkdir .vscode; echo evil >.vscode/tasks.json",
    "make .envrc": "echo evil >.envrc",
    "move onto .envrc": "echo evil >x; mv -T x .envrc",
    "link .envrc": "ln -sT code .envrc",
    "remove and make .envrc": "rmdir .envrc; rm -rf .envrc; echo evil >.envrc",
    "make .mcp.json": "echo evil >.mcp.json",
    "make settings of an agent": "mkdir .claude; echo evil >.claude/settings.json",
    "make a workflow": "mkdir -p .github/workflows; echo evil >.github/workflows/x.yml",
    "move .github": "mv .github x; mkdir -p .github/workflows; echo evil >.github/workflows/x.yml",
    "change the mode": "chmod 777 .git/hooks/pre-commit .git/config",
    "through /proc": "echo evil >/proc/self/cwd/.git/hooks/pre-commit",
    "by another name": "ln .git/config hard && echo evil >>hard",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_is_protected_is_neither_changed_nor_made(by: Maker, attempt: str) -> None:
    here = project(by)
    before = tree(here)
    sh(by, f"{ATTEMPTS[attempt]}; true", here)
    after = tree(here)
    protected = {path: what for path, what in before.items() if path.startswith((*PROTECTED,))}
    assert {path: what for path, what in after.items() if path.startswith((*PROTECTED,))} == protected
    assert {path.split("/")[0] for path in after.keys() - before.keys()} <= {"x", "copy", "hard", ".github"}


def test_everything_else_is_writable_and_git_works(by: Maker) -> None:
    here = project(by)
    script = (
        "echo new >new; mv code moved; mkdir d; git add -A; git -c user.name=a -c user.email=a@b commit -qm first; "
        "git branch other; git status --short; git log --format=%s"
    )
    assert sh(by, script, here) == "first\n"
    assert (here / "new").read_text() == "new\n"
    left = {path for path in tree(here) if not path.startswith((".git/", ".vscode"))}
    assert left == {".git", "d", "moved", "new"}


def test_nothing_is_left_behind_on_the_host(by: Maker) -> None:
    here = project(by)
    before = tree(here)
    assert ".envrc" in sh(by, "ls -A", here)
    assert tree(here) == before


def test_placeholders_of_a_crash_go_with_the_next_sandbox_and_what_is_anybodys_stays(by: Maker) -> None:
    here = project(by, git=False)
    (here / ".qwen").mkdir()
    (here / ".qwen").chmod(PLACEHOLDER_MODE)
    (here / ".gemini").mkdir(mode=0o755)
    (here / ".codex").mkdir()
    (here / ".codex" / "mine").write_text("of a person, made while a sandbox ran")
    (here / ".codex").chmod(PLACEHOLDER_MODE)
    give(by, here)
    sh(by, "true", here)
    assert {path.name for path in here.iterdir()} == {".vscode", ".gemini", ".codex", "code"}
    assert (here / ".codex" / "mine").exists()


def test_two_sandboxes_of_one_directory_do_not_take_each_others_protection(by: Maker) -> None:
    here = project(by)
    script = "echo on; read go; echo evil >.envrc; echo evil >.git/config.worktree; true"
    with by.start("run", *AGENT, "--", "sh", "-c", script, cwd=here, stdin=-1) as first:
        assert line_of(first.stdout) == "on"
        sh(by, "true", here)
        assert (here / ".envrc").is_dir()
        first.communicate("go\n", timeout=60)
    assert not (here / ".envrc").exists()
    assert not (here / ".git" / "config.worktree").exists()


def test_a_directory_that_somebody_else_holds_is_used_all_the_same(by: Maker) -> None:
    here = project(by)
    descriptor = os.open(here, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        assert "Is a directory" in sh(by, "echo evil >.envrc", here)
    finally:
        os.close(descriptor)
    assert (here / ".envrc").is_dir(), "somebody may need it"
    sh(by, "true", here)
    assert not (here / ".envrc").exists()


def test_a_link_stays_and_so_does_what_it_leads_to(by: Maker) -> None:
    here = project(by)
    (here / "settings").mkdir()
    (here / "settings" / "hooks.json").write_text("{}")
    (here / ".claude").symlink_to("settings")
    (here / ".envrc").symlink_to("/nonexistent/envrc")
    give(by, here)
    before = tree(here)
    said = sh(
        by,
        "cat .claude/hooks.json; echo evil >.claude/hooks.json; echo evil >settings/hooks.json; mv settings x; mv .claude x; "
        "rm -f .claude .envrc; ln -sfn code .claude; echo evil >.envrc; ls -l .claude",
        here,
    )
    assert said.startswith("{}")
    assert "-> settings" in said
    assert tree(here) == before


def test_a_link_to_what_is_not_there_is_refused(by: Maker) -> None:
    here = project(by)
    (here / ".envrc").symlink_to("later")
    give(by, here)
    done = by.run("true", options=AGENT, cwd=here)
    assert done.returncode == 125
    assert f"sandbox: protect: {here}/.envrc cannot be protected: it is a link to later, which is not there." in done.stderr
    assert {path.name for path in here.iterdir()} == {".git", ".vscode", ".envrc", "code"}


def test_repositories_in_the_directory_their_submodules_and_linked_worktrees(by: Maker) -> None:
    here = project(by)
    repository(here / "a" / "b")
    repository(here / "too" / "deep" / "by" / "one")
    module = here / ".git" / "modules" / "lib"
    shutil.copytree(here / "a" / "b" / ".git", module)
    (here / "lib").mkdir()
    (here / "lib" / ".git").write_text("gitdir: ../.git/modules/lib\n")
    give(by, here)
    before = tree(here)
    for attempt in (
        "echo evil >a/b/.git/hooks/pre-commit",
        "echo evil >>a/b/.git/config",
        "mv a/b/.git a/b/x",
        "echo evil >>.git/modules/lib/config",
        "mv .git/modules/lib .git/modules/x",
        "echo evil >lib/.git",
        "mv lib/.git x",
    ):
        sh(by, f"{attempt}; true", here)
        assert {path: what for path, what in tree(here).items() if path != "x"} == before, attempt
    sh(by, "echo evil >>too/deep/by/one/.git/config", here)
    assert "evil" in (here / "too/deep/by/one/.git/config").read_text(), "beyond the depth that is promised"


def test_a_repository_that_is_granted_itself(by: Maker) -> None:
    here = project(by)
    before = tree(here)
    script = f"cd {here}/.git; echo evil >>config; echo evil >hooks/post-commit; mv hooks x; echo ref >refs/new"
    sh(by, script, here, "--write", f"{here}/.git")
    assert {path: what for path, what in tree(here).items() if path != ".git/refs/new"} == before
    assert (here / ".git/refs/new").exists()


def test_a_detour_to_other_hooks_is_taken_away(by: Maker) -> None:
    here = project(by)
    sh(by, "mkdir evil; echo ../evil >.git/commondir", here)
    assert not (here / ".git" / "commondir").exists()


def test_a_home_keeps_its_start_files(by: Maker) -> None:
    here = by.directory("project")
    (here / ".bashrc").write_text("mine")
    give(by, here)
    sh(by, "echo evil >>.bashrc; echo evil >.zshrc; echo evil >.profile; true", here)
    assert tree(here) == {".bashrc": "mine"}
    (here / ".bashrc").unlink()
    assert ".zshrc" not in sh(by, "ls -A", here)


def test_a_profile_adds_and_releases(by: Maker) -> None:
    here = project(by)
    (here / "deploy.sh").write_text("mine")
    give(by, here)
    profile = by.profile('extends = "agent"\nprotect = ["deploy.sh"]\nunprotect = [".vscode", ".envrc"]')
    sh(
        by,
        "echo evil >deploy.sh; echo ours >.vscode/tasks.json; echo ours >.envrc; echo evil >.mcp.json",
        here,
        "--profile",
        profile,
    )
    assert (here / "deploy.sh").read_text() == "mine"
    assert (here / ".vscode/tasks.json").read_text() == (here / ".envrc").read_text() == "ours\n"
    assert not (here / ".mcp.json").exists()


def test_in_repositories_alone(by: Maker) -> None:
    here = project(by)
    profile = by.profile('extends = "agent"\nprotect_missing = "repository"')
    said = sh(by, "ls -A; echo ours >.envrc; echo evil >.git/config.worktree", here, "--profile", profile)
    assert said.split()[:3] == [".git", ".vscode", "code"]
    assert (here / ".envrc").read_text() == "ours\n"
    assert not (here / ".git" / "config.worktree").exists()


def test_without_protect_missing_only_what_is_there_is_protected(by: Maker) -> None:
    here = project(by)
    profile = by.profile('extends = "agent"\nprotect_missing = "none"')
    said = sh(by, "ls -A; echo ours >.envrc; echo evil >.vscode/tasks.json", here, "--profile", profile)
    assert said.split()[:3] == [".git", ".vscode", "code"]
    assert (here / ".envrc").read_text() == "ours\n"
    assert (here / ".vscode/tasks.json").read_text() == "{}"


def test_what_is_granted_by_its_own_name_is_meant(by: Maker) -> None:
    here = project(by)
    sh(by, "echo ours >.git/hooks/pre-commit; echo evil >>.git/config", here, *AGENT, "--write", f"{here}/.git/hooks")
    assert (here / ".git/hooks/pre-commit").read_text() == "ours\n"
    assert "evil" not in (here / ".git/config").read_text()


def test_a_directory_that_its_owner_has_closed_is_refused(by: Maker) -> None:
    """He could open it, and make everything in it."""
    here = by.directory("project", mode=0o555)
    done = by.run("true", options=AGENT, cwd=here)
    assert done.returncode == 125
    assert "cannot be protected: its directory is closed to its owner, who can open it." in done.stderr
    assert list(here.iterdir()) == []
