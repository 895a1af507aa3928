"""Profiles: the built-in ones, a file of one's own, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import profile
from sandbox.errors import SandboxError
from sandbox.spec import MIB, Bind, SandboxSpec, check


def written(directory: Path, text: str) -> str:
    path = directory / "mine.toml"
    path.write_text(text)
    return str(path)


def refusal(name: str) -> str:
    with pytest.raises(SandboxError) as refused:
        profile.load(name)
    assert refused.value.step == "profile"
    return str(refused.value)


def test_the_built_in_profiles_are_there() -> None:
    assert profile.names() == ["strict", "workspace"]
    assert profile.DEFAULT in profile.names()


@pytest.mark.parametrize("name", profile.names())
def test_every_built_in_profile_limits_and_can_be_meant(name: str) -> None:
    loaded = profile.load(name)
    assert min(loaded.memory_bytes, loaded.pids, loaded.cpu_percent, loaded.tmp_bytes, loaded.open_files) > 0
    check(SandboxSpec(argv=("true",), binds=loaded.binds("/srv"), env=loaded.env, hostname=loaded.hostname))


def test_strict_shows_nothing_of_the_host_and_workspace_the_directory_alone() -> None:
    assert profile.load("strict").binds("/srv") == ()
    assert profile.load("workspace").binds("/srv") == (Bind("/srv", writable=True),)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    loaded = profile.load(
        written(
            tmp_path,
            'memory_bytes = 1_000\nhostname = "mine"\nhere = "read"\nenv = { A = "1" }\npass_env = []\noptional_layers = []\n'
            '[[paths]]\nsource = "/data"\n[[paths]]\nsource = "/out"\ntarget = "/o"\nwritable = true\n',
        )
    )
    assert loaded.memory_bytes == 1_000
    assert loaded.tmp_bytes == 256 * MIB
    assert (loaded.env, loaded.pass_env, loaded.optional_layers) == ({"A": "1"}, (), ())
    assert loaded.binds("/here") == (Bind("/data"), Bind("/out", "/o", writable=True), Bind("/here"))


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    assert refusal("nosuch") == "profile: no profile nosuch. Built in: strict, workspace; or give a file.toml."
    assert "no profile /nosuch.toml" in refusal("/nosuch.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("memory_byte = 1", "memory_byte"),
        ('[[paths]]\nsource = "/a"\nwriteable = true', "writeable"),
        ("[[paths]]\nwritable = true", "source"),
        ('pids = "many"', "$.pids"),
        ("pids = 1.5", "$.pids"),
        ('here = "everywhere"', "$.here"),
        ("env = { A = 1 }", "$.env"),
        ("[[paths]]\nsource = 3", "$.paths[0].source"),
        ("pids = ", "Invalid value"),
        ("pids = 1\npids = 2", "Cannot overwrite"),
    ],
)
def test_a_wrong_file_is_told_with_its_path_and_the_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"profile: {path}: ")
    assert told in message


def test_a_file_that_is_no_text_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "directory.toml").mkdir()
    for name in ("bytes.toml", "directory.toml"):
        assert str(tmp_path / name) in refusal(str(tmp_path / name))
