"""Profiles: the built-in ones, a file of one's own, what inheritance makes of them, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import profile
from sandbox.errors import SandboxError
from sandbox.profile import Profiles
from sandbox.protected import PROTECTED
from sandbox.spec import Bind, SandboxSpec, check

BUILT_IN = ["agent", "build", "open", "strict"]


def written(directory: Path, text: str, name: str = "mine.toml") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def refusal(name: str) -> str:
    with pytest.raises(SandboxError) as refused:
        profile.load(name)
    assert refused.value.step == "profile"
    return str(refused.value)


def origins(resolved: profile.Resolved, key: str) -> dict[object, str]:
    return {row.value: row.origin for row in resolved.rows if row.key == key}


def test_the_built_in_profiles_are_there() -> None:
    assert profile.names() == BUILT_IN
    assert profile.DEFAULT in profile.names()


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_profile_limits_and_can_be_meant(name: str) -> None:
    loaded = profile.load(name)
    assert min(loaded.pids, loaded.tmp_bytes, loaded.open_files) > 0
    check(SandboxSpec(argv=("true",), binds=loaded.binds("/srv"), env=loaded.env, **loaded.spec_fields()))


def test_strict_grants_nothing_of_the_host_and_agent_the_directory_alone() -> None:
    strict, agent = profile.load("strict"), profile.load("agent")
    assert strict.binds("/srv") == ()
    assert agent.binds("/srv") == (Bind("/srv", writable=True),)
    for loaded in (strict, agent):
        assert (loaded.env, loaded.hosts, loaded.loopback_ports, loaded.devices, loaded.allow_syscalls) == ({}, (), (), (), ())
        assert loaded.protected == PROTECTED
        assert min(loaded.memory_bytes, loaded.cpu_percent) > 0


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    loaded = profile.load(
        written(
            tmp_path,
            'memory_bytes = 1_000\nhostname = "mine"\nhere = "read"\nenv = { A = "1" }\n'
            '[[paths]]\nsource = "/data"\n[[paths]]\nsource = "/out"\ntarget = "/o"\nwritable = true\n',
        )
    )
    assert loaded.memory_bytes == 1_000
    assert loaded.env == {"A": "1"}
    assert loaded.binds("/here") == (Bind("/data"), Bind("/out", "/o", writable=True), Bind("/here"))


def test_what_extends_nothing_else_extends_strict(tmp_path: Path) -> None:
    """A limit that was forgotten is not a limit of 0, which is none."""
    assert profile.load(written(tmp_path, "pids = 7")).memory_bytes == profile.load("strict").memory_bytes > 0
    assert profile.load(written(tmp_path, 'extends = ""\npids = 7')).memory_bytes == 0


def test_lists_and_tables_add_and_the_rest_is_replaced(tmp_path: Path) -> None:
    written(
        tmp_path,
        'pids = 1\ncpu_weight = 5\nhosts = ["a.example"]\nenv = { A = "1", B = "1" }\n[[paths]]\nsource = "/data"\n',
        "parent.toml",
    )
    child = 'extends = "parent.toml"\npids = 2\nhosts = ["b.example", "a.example"]\nenv = { B = "2" }\n'
    path = written(tmp_path, child + '[[paths]]\nsource = "/data"\nwritable = true\n[[paths]]\nsource = "/more"\n')
    resolved = profile.resolve(path)
    loaded = resolved.profile
    assert (loaded.pids, loaded.cpu_weight) == (2, 5)
    assert loaded.hosts == ("a.example", "b.example")
    assert loaded.env == {"A": "1", "B": "2"}
    assert loaded.binds("") == (Bind("/data", writable=True), Bind("/more"))
    parent = str(tmp_path / "parent.toml")
    assert resolved.chain == (path, parent, "strict")
    assert origins(resolved, "pids") == {2: path}
    assert origins(resolved, "cpu_weight") == {5: parent}
    assert origins(resolved, "open_files") == {1024: "strict"}
    assert origins(resolved, "hosts") == {"a.example": path, "b.example": path}
    assert origins(resolved, "pass_env") == {"LANG": "strict", "TERM": "strict"}


def test_replace_leaves_out_the_parents_part(tmp_path: Path) -> None:
    resolved = profile.resolve(written(tmp_path, 'extends = "open"\nreplace = ["pass_env", "hosts"]\npass_env = ["TERM"]'))
    assert (resolved.profile.pass_env, resolved.profile.hosts) == (("TERM",), ())
    assert origins(resolved, "hosts") == {(): profile.NOBODY}
    assert resolved.profile.devices == profile.load("open").devices


def test_protected_paths_are_added_and_released_by_name(tmp_path: Path) -> None:
    loaded = profile.load(written(tmp_path, 'protect = ["deploy.sh"]\nunprotect = [".vscode"]'))
    assert set(loaded.protected) == {*PROTECTED, "deploy.sh"} - {".vscode"}
    assert profile.load("open").protected == ()
    assert "is not protected. Did you mean .vscode?" in refusal(written(tmp_path, 'unprotect = [".vscod"]'))


def test_a_profile_is_shown_in_full_with_where_each_value_is_from(tmp_path: Path) -> None:
    path = written(tmp_path, 'extends = "agent"\npids = 12\n[[paths]]\nsource = "/data"\nwritable = true')
    shown = [line.split() for line in str(profile.resolve(path)).splitlines()]
    assert shown[0] == [path, "extends", "agent", "extends", "strict"]
    assert {line[0] for line in shown[1:]} == {*profile.Profile.__struct_fields__, "protected"}
    for line in (
        ["pids", "12", path],
        ["here", "write", "agent"],
        ["paths", "/data,", "WRITABLE", path],
        ["memory_bytes", "2_147_483_648", "strict"],
        ["hosts", "-", "not", "granted"],
        ["protected", ".envrc", "built", "in"],
    ):
        assert line in shown


def test_tables_of_a_configuration_extend_each_other_and_the_built_in_ones() -> None:
    found = Profiles({"a": {"extends": "b", "pids": 3}, "b": {"extends": "build"}}, "config.toml")
    resolved = found.resolve("a")
    assert resolved.chain == ("a", "b", "build", "agent", "strict")
    assert origins(resolved, "pids") == {3: "config.toml: profiles.a"}
    assert found.names() == ["a", "agent", "b", "build", "open", "strict"]
    with pytest.raises(SandboxError, match=r"config.toml: profiles.agent: agent is a built-in profile"):
        Profiles({"agent": {}}, "config.toml").resolve("agent")


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    assert refusal("nosuch") == "profile: no profile nosuch. There are: agent, build, open, strict; or give a file.toml."
    assert "Did you mean strict?" in refusal("stricy")
    assert "no profile /nosuch.toml" in refusal("/nosuch.toml")
    assert "Did you mean agent?" in refusal("workspace")  # as it was called once


def test_a_parent_that_is_not_there_is_told_with_its_child(tmp_path: Path) -> None:
    path = written(tmp_path, 'extends = "nosuch"')
    assert refusal(path).startswith(f"profile: {path}: `extends`: no profile nosuch. ")
    path = written(tmp_path, 'extends = "gone.toml"')
    assert refusal(path).startswith(f"profile: {path}: `extends`: no profile {tmp_path}/gone.toml. ")


def test_a_circle_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, 'extends = "mine.toml"')
    assert refusal(path) == f"profile: {path}: `extends`: leads in a circle: {path} extends {path}."
    other = written(tmp_path, 'extends = "mine.toml"', "other.toml")
    written(tmp_path, 'extends = "other.toml"')
    assert f"{other}: `extends`: leads in a circle: {path} extends {other} extends {path}." in refusal(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("memory_byte = 1", "unknown key `memory_byte`. Did you mean `memory_bytes`?"),
        ("xyzzy = 1", "unknown key `xyzzy`. Known keys here: "),
        ('[[paths]]\nsource = "/a"\nwriteable = true', "unknown key `paths[0].writeable`. Did you mean `writable`?"),
        ("[[paths]]\nwritable = true", "`paths[0]`: Object missing required field `source`"),
        ('pids = "many"', "`pids`: "),
        ("pids = 1.5", "`pids`: "),
        ("pids = -1", "`pids`: must be from 0"),
        ("swap_bytes = -1", "`swap_bytes`: must be from 0"),
        ("cpu_weight = 10_001", "`cpu_weight`: must be from 1 to 10000, or 0."),
        ("wall_s = -1", "`wall_s`: "),
        ("wall_s = nan", "`wall_s`: "),
        ('here = "everywhere"', "`here`: "),
        ("env = { A = 1 }", "`env"),
        ('env = { "A=B" = "1" }', "`env`: "),
        ("[[paths]]\nsource = 3", "`paths[0].source`: "),
        ('[[paths]]\nsource = "relative"', "`paths`: 'relative' is no absolute, normal path."),
        ('masked = ["/a/../b"]', "`masked`: "),
        ('tmpfs = ["/"]', "`tmpfs`: the root itself"),
        ('protect = ["/etc"]', "`protect`: '/etc' is no path below a bind"),
        ('protect = ["../x"]', "`protect`: "),
        ('devices = ["/dev/sda"]', "`devices`: '/dev/sda' is not given to a sandbox"),
        ('devices = ["/dev/dri/../sda"]', "`devices`: "),
        ('allow_syscalls = ["mounts"]', "`allow_syscalls`: mounts is no group that can be: debugging, memory nodes can."),
        ('deny_syscalls = ["files"]', "`deny_syscalls`: files is no group that can be"),
        ('hosts = ["https://a.example"]', "`hosts`: 'https://a.example' is no host"),
        ('hosts = ["a.example:0"]', "`hosts`: "),
        ('hosts = ["a.example:99999"]', "`hosts`: "),
        ("loopback_ports = [0]", "`loopback_ports`: 0 is no port"),
        ('pass_env = ["A=B"]', "`pass_env`: "),
        ('hostname = "a b"', "`hostname`: "),
        ('optional_layers = ["seccomp"]', "`optional_layers`: seccomp cannot be optional"),
        ('replace = ["pids"]', "`replace`: pids is no list or table"),
        ('replace = ["nosuch"]', "`replace`: nosuch is no list or table"),
        ("extends = 3", "`extends`: "),
        ("pids = ", "Invalid value"),
        ("pids = 1\npids = 2", "Cannot overwrite"),
    ],
)
def test_a_wrong_file_is_told_with_its_path_and_the_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"profile: {path}: ")
    assert told in message


def test_a_parent_that_is_wrong_is_told_with_its_own_path(tmp_path: Path) -> None:
    parent = written(tmp_path, "pids = -1", "parent.toml")
    assert refusal(written(tmp_path, 'extends = "parent.toml"')).startswith(f"profile: {parent}: `pids`: ")


@pytest.mark.parametrize(
    "host", ["a", "a.example", "*.a.example", "A-1.example:8443", "*", "*:8443", "xn--a.example", "_x.example"]
)
def test_hosts_that_can_be_meant(tmp_path: Path, host: str) -> None:
    assert profile.load(written(tmp_path, f'hosts = ["{host}"]')).hosts == (host,)


def test_a_file_that_is_no_text_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "directory.toml").mkdir()
    for name in ("bytes.toml", "directory.toml"):
        assert str(tmp_path / name) in refusal(str(tmp_path / name))
