"""Which directories of the host a sandbox may be given, by name alone: a made-up host with the homes of some accounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.places import refusal

HOMES = ("/home/ann", "/root", "/data/people/bob", "/var/lib/builder")
RUNTIME = "/run/user/1000"


def told(path: str, *secrets: str, writable: bool = True) -> str:
    return refusal(path, secrets, writable=writable, homes=HOMES)


@pytest.mark.parametrize(
    "path",
    [
        "/home/ann/project",
        "/home/ann/work/.hidden/project",
        "/home/new/project",
        "/root/project",
        "/data/people/bob/project",
        "/data/project",
        "/work/main",
        "/srv/git/project",
        "/opt/project",
        "/mnt/disk",
        "/tmp/project",
        "/var/tmp/project",
        "/var/www/site",
        "/var/home/ann/project",
        "/var/lib/builder/job",
        "/run/media/ann/disk",
        "/libexec",
        "/usrlocal",
        "/etc.old/x",
    ],
)
def test_a_project_is_fine(path: str) -> None:
    assert told(path) == ""
    assert told(path, writable=False) == ""


@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        "/etc/cron.d",
        "/usr",
        "/usr/local/src/x",
        "/boot",
        "/bin",
        "/sbin/x",
        "/lib",
        "/lib64",
        "/lib/x",
        "/proc",
        "/proc/self/root",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/shm/x",
        "/run",
        "/run/user/1000",
        "/run/docker",
        "/var",
        "/var/lib",
        "/var/lib/docker/volumes",
        "/var/log",
        "/var/spool/cron",
        "/var/tmp",
        "/var/lib/x",
        "/nix/store",
        "/snap/x",
    ],
)
def test_the_system_is_not(path: str) -> None:
    assert told(path)


@pytest.mark.parametrize(
    "path", ["/proc", "/proc/1/root", "/sys/kernel", "/dev", "/run", "/run/docker", "/", "/home", "/home/ann"]
)
def test_what_may_not_even_be_read(path: str) -> None:
    assert told(path, writable=False)


@pytest.mark.parametrize("path", ["/usr/share/x", "/etc/x", "/opt", "/srv", "/home/ann/.nvm", "/home/ann/.local/share/x"])
def test_what_may_be_read_but_not_written(path: str) -> None:
    assert told(path)
    assert told(path, writable=False) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "is the whole machine"),
        ("/home", "holds the home directories"),
        ("/home/ann", "is a home directory"),
        ("/home/new", "is a home directory"),
        ("/var/home/ann", "is a home directory"),
        ("/root", "is a home directory"),
        ("/data/people/bob", "is a home directory"),
        ("/data/people", "holds /data/people/bob, a home directory"),
        ("/data", "holds /data/people/bob, a home directory"),
        ("/var/lib/builder", "belongs to the system, by /var"),
        ("/tmp", "is shared by many"),
        ("/mnt", "is shared by many"),
        ("/home/ann/.ssh", "lies in /home/ann/.ssh, among the settings of a person"),
        ("/home/ann/.config/systemd/user", "lies in /home/ann/.config, among the settings of a person"),
        ("/home/new/.local/bin", "lies in /home/new/.local, among the settings of a person"),
        ("/data/people/bob/.bashrc.d", "lies in /data/people/bob/.bashrc.d, among the settings of a person"),
        ("/root/.cache", "lies in /root/.cache, among the settings of a person"),
        ("/tmp/.X11-unix", "lies in /tmp/.X11-unix, among the settings of a person"),
    ],
)
def test_homes_and_what_a_dot_hides_in_them(path: str, why: str) -> None:
    assert told(path) == why


@pytest.mark.parametrize("key", [".ssh", ".ssh/keys", ".gnupg", ".config", ".config/gcloud", ".aws"])
def test_keys_may_not_even_be_read(key: str) -> None:
    assert told(f"/home/ann/{key}", writable=False) == "holds keys, in /home/ann"


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/data/state", "is what no sandbox may reach"),
        ("/data/state/journal", "lies in /data/state, which no sandbox may reach"),
        ("/data/conf", "holds /data/conf/config.toml, which no sandbox may reach"),
        ("/data/conf/project", ""),
        ("/data/statex", ""),
    ],
)
def test_secrets_of_the_caller(path: str, why: str, writable: bool) -> None:
    assert told(path, "/data/state", "/data/conf/config.toml", "", writable=writable) == why


def test_a_secret_by_way_of_a_link_is_known_by_both_names(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    for name in ("real", "link"):
        assert refusal(str(tmp_path / name / "x"), [str(tmp_path / "link")], homes=())


@pytest.mark.parametrize("path", ["", "work", "/work/", "/work/../etc", "//work", "/work/.", "./x"])
def test_a_path_that_could_mean_another_is_refused(path: str) -> None:
    assert told(path) == "is no absolute, normal path"


def test_the_homes_of_this_host_and_process_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal("/root", []) == "is a home directory"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert refusal(str(tmp_path / "home"), []) == "is a home directory"
    assert refusal(str(tmp_path), []) == f"holds {tmp_path}/home, a home directory"
    assert refusal(str(tmp_path / "home" / "project"), []) == ""


@pytest.mark.parametrize("home", ["/", "/usr/games", "/tmp", "/nonexistent", "/var", "/srv"])
def test_a_home_that_is_none_makes_nothing_else_a_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert refusal("/tmp/project", []) == ""
    assert refusal("/srv/project", []) == ""
