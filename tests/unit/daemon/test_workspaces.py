"""A workspace is a project's directory of the client's own, and never what the sandbox exists to hide."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from supervisord_agents.config import Config, Daemon, Gateway, Provider
from supervisord_agents.daemon.workspaces import Workspaces, secrets_of
from supervisord_agents.errors import InvalidInput
from supervisord_agents.workers.shape import owns

ME = os.geteuid()


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces([tmp_path / "state", tmp_path / "supervisor.sock"])


def refused(workspaces: Workspaces, path: Path | str, uid: int = ME) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        workspaces.real(str(path), uid)
    assert caught.value.field == "workspace"
    return caught.value


def test_a_project_is_given_by_its_real_path(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "link").symlink_to("project")
    assert workspaces.real(str(tmp_path / "link"), ME) == str(tmp_path / "project")


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/ssh", "/usr/lib", "/var/lib", "/proc/self", "/root", "/home", "/dev/shm"])
def test_the_system_and_homes_are_refused(workspaces: Workspaces, path: str) -> None:
    assert "cannot be a workspace" in refused(workspaces, path).message


def test_what_holds_or_lies_in_a_secret_of_the_daemon_is_refused(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "state" / "results").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "state", tmp_path / "state" / "results"):
        assert "no sandbox may reach" in refused(workspaces, path).message
    (tmp_path / "way-in").symlink_to("state")
    assert "no sandbox may reach" in refused(workspaces, tmp_path / "way-in").message


@pytest.mark.parametrize(("path", "says"), [("here", "absolute"), ("/nowhere/at/all", "No such file"), ("/tmp/a\0b", "NUL")])
def test_what_is_no_directory_is_named(workspaces: Workspaces, path: str, says: str) -> None:
    assert says in str(refused(workspaces, path))


def test_a_file_is_no_workspace(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a directory" in refused(workspaces, tmp_path / "file").message


def test_a_directory_of_somebody_else_is_not_the_client_s_to_give(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    assert "does not belong to you" in refused(workspaces, tmp_path / "project", uid=ME + 12345).message
    assert owns(0, 4711)
    assert owns(ME, 4711)
    assert owns(4711, 4711)
    assert not owns(ME + 1, 4711)


def test_a_directory_that_the_supervisor_cannot_read_is_named(workspaces: Workspaces) -> None:
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        project = Path(parent, "project")
        project.mkdir(mode=0)
        said = by_an_ordinary_user(workspaces, project) if ME == 0 else str(refused(workspaces, project))
    assert "cannot be read by the supervisor" in said


def by_an_ordinary_user(workspaces: Workspaces, project: Path) -> str:
    """What is refused in a child process that has given up root, to whom nothing is unreadable."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresgid(12345, 12345, 12345)
        os.setresuid(12345, 12345, 12345)
        try:
            workspaces.real(str(project), 0)
        except InvalidInput as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as file:
        return file.read().decode()


def test_the_secrets_are_those_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/4711")
    monkeypatch.setenv("AGENT_SUPERVISOR_CONFIG", str(tmp_path / "config.toml"))
    config = Config(
        daemon=Daemon(state_dir="/srv/state", socket="/srv/sock"),
        gateway=Gateway(providers={"p": Provider(base_url="https://h", api_key_file="/srv/key")}),
    )
    expected = ["/srv/state", "/srv/sock", "/srv/key", str(tmp_path / "config.toml"), "/run/user/4711"]
    assert [str(path) for path in secrets_of(config)] == expected
