"""A specification that cannot be meant is refused, and the refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.errors import SandboxError
from sandbox.spec import MAX_UID, Bind, Listener, SandboxSpec, check, listeners_of


def refusal(**fields: Any) -> SandboxError:
    with pytest.raises(SandboxError) as refused:
        check(SandboxSpec(**{"argv": ("true",), **fields}))
    assert refused.value.step == "spec"
    return refused.value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"argv": ("/usr/bin/env", "", "ümlaut", "-")},
        {"env": {"EMPTY": "", "EQUALS": "a=b"}, "cwd": "/tmp"},
        {"binds": (Bind("/srv"), Bind("/srv/a b", "/workspace", writable=True))},
        {"binds": (Bind("/srv", writable=True, layers="/layers", reviewed=True),)},
        {"uid": 1},
        {"uid": MAX_UID},
        {"optional_layers": ("cgroup",)},
        {"hostname": "a" * 64, "loopback_listen": (1, 65535)},
        {"tmpfs": ("/opt/x",), "masked": ("/srv/a", "/srv/a"), "protected": (), "protect_missing": "none"},
        {"devices": ("/dev/dri/card0", "/dev/nvidia*", "/dev/nvidia0"), "wall_s": 0.5, "cpu_weight": 10_000, "io_weight": 1},
        {"allow_syscalls": ("debugging",), "deny_syscalls": ("debugging", "network")},
        {"memory_bytes": 0, "pids": 1, "cpu_percent": 1, "open_files": 0, "file_size_bytes": 1, "tmp_bytes": 4096},
    ],
)
def test_what_can_be_meant_passes(fields: dict[str, Any]) -> None:
    check(SandboxSpec(**{"argv": ("true",), **fields}))


@pytest.mark.parametrize("argv", [(), ("",), ("ls\0",), ("ls", "a\0b"), ("ls", 3)])
def test_argv(argv: tuple[Any, ...]) -> None:
    assert refusal(argv=argv).message.startswith("argv: ")


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0y"}])
def test_env(env: dict[str, str]) -> None:
    error = refusal(env=env)
    assert error.message.startswith("env: ")
    assert repr(next(iter(env))) in error.message


NO_PATHS = ["", ".", "work", "./work", "/work/", "/work/../etc", "/work//x", "/work/.", "//work", "/wo\0rk"]


@pytest.mark.parametrize("path", NO_PATHS)
def test_cwd(path: str) -> None:
    error = refusal(cwd=path)
    assert error.message.startswith("cwd: ")
    assert repr(path) in error.message


@pytest.mark.parametrize("path", NO_PATHS)
def test_the_source_of_a_bind(path: str) -> None:
    assert refusal(binds=(Bind("/ok"), Bind(path, "/place"))).message.startswith("binds: ")


@pytest.mark.parametrize("path", NO_PATHS[1:])
def test_the_target_of_a_bind(path: str) -> None:
    assert refusal(binds=(Bind("/ok", path),)).message.startswith("binds: ")


@pytest.mark.parametrize("path", NO_PATHS[1:])
def test_the_layers_of_a_view(path: str) -> None:
    assert refusal(binds=(Bind("/ok", writable=True, layers=path),)).message.startswith("binds: ")


def test_only_what_can_be_written_is_a_copy_on_write_view() -> None:
    assert "writable" in refusal(binds=(Bind("/ok", layers="/layers"),)).message


@pytest.mark.parametrize("bind", [Bind("/"), Bind("/srv", "/"), Bind("/srv", "//"), Bind("/", writable=True)])
def test_the_root_itself_cannot_be_bound(bind: Bind) -> None:
    assert refusal(binds=(bind,)).message.startswith("binds: ")


@pytest.mark.parametrize("uid", [0, -1, 2**31, 2**32 - 1, 2**32, 2**40])
def test_a_worker_is_never_root(uid: int) -> None:
    """2³² − 1 is the -1 of setresuid(2), which would leave root as it is."""
    assert refusal(uid=uid).message.startswith("uid: ")


@pytest.mark.parametrize("hostname", ["", "a" * 65, "a\nb", "a b", "-a", "a\0b", "ä"])
def test_hostname(hostname: str) -> None:
    assert refusal(hostname=hostname).message.startswith("hostname: ")


LIMITS = ["tmp_bytes", "open_files", "file_size_bytes", "memory_bytes", "swap_bytes", "pids", "cpu_percent", "cpu_weight"]
LIMITS += ["io_weight", "io_read_bytes_per_s", "io_write_bytes_per_s", "wall_s"]


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_limit_below_none_or_beyond_the_kernels_numbers(field: str, value: int) -> None:
    """The kernel takes -1 for "no limit" here and there: a slip would lift the limit."""
    assert refusal(**{field: value}).message.startswith(f"{field}: ")


def test_what_is_private_and_writable_has_a_limit() -> None:
    """0 would be none to a tmpfs, whose pages are memory of the host."""
    assert refusal(tmp_bytes=0).message == "tmp_bytes: must be at least 4096."


def test_more_processes_than_there_can_be() -> None:
    assert refusal(pids=4 * 2**20 + 1).message.startswith("pids: ")


@pytest.mark.parametrize("owner", [(-1, 0), (0, 2**32 - 1), (2**32, 1)])
def test_an_owner_that_nobody_can_be(owner: tuple[int, int]) -> None:
    check(SandboxSpec(argv=("true",), binds=(Bind("/srv", owner=(0, 2**32 - 2)),)))
    assert refusal(binds=(Bind("/srv", owner=owner),)).message.startswith("binds: ")


def test_a_terminal_needs_a_session_of_its_own() -> None:
    check(SandboxSpec(argv=("true",), terminal=True, init=True))
    assert refusal(terminal=True).message == "terminal: needs `init`."


@pytest.mark.parametrize("ports", [(0,), (-1,), (65536,), (80, 80)])
def test_loopback_listen(ports: tuple[int, ...]) -> None:
    assert refusal(loopback_listen=ports).message.startswith("loopback_listen: ")


@pytest.mark.parametrize("ports", [(0,), (65536,), (443, 443), (53,), (80,), tuple(range(1000, 1030))])
def test_loopback_any(ports: tuple[int, ...]) -> None:
    check(SandboxSpec(argv=("true",), loopback_listen=(80,), loopback_any=(443, 8443), dns=True))
    check(SandboxSpec(argv=("true",), loopback_any=(53, 80)))
    assert refusal(loopback_listen=(80,), loopback_any=ports, dns=True).message.startswith("loopback_any: ")


def test_the_port_of_names_is_taken() -> None:
    assert refusal(loopback_listen=(53,), dns=True).message == "loopback_listen: 53 is listened on already."


def test_the_order_of_the_sockets_is_that_of_the_fields() -> None:
    spec = SandboxSpec(argv=("true",), dns=True, loopback_any=(443,), loopback_listen=(80,))
    assert listeners_of(spec) == (Listener(80), Listener(443, "0.0.0.0"), Listener(53, udp=True), Listener(53))


def test_only_some_layers_are_optional() -> None:
    error = refusal(optional_layers=("cgroup", "seccomp", "mount"))
    assert error.message == "optional_layers: mount, seccomp cannot be optional; cgroup, landlock, namespaces can."


@pytest.mark.parametrize("field", ["tmpfs", "masked"])
@pytest.mark.parametrize("path", [*NO_PATHS, "/"])
def test_paths_that_are_hidden_or_private(field: str, path: str) -> None:
    assert refusal(**{field: (path,)}).message.startswith(f"{field}: ")


@pytest.mark.parametrize("path", ["", ".", "/etc", "..", "../x", "a/../b", "a//b", "a/", "./a", "a\0"])
def test_protected_paths_lie_below_a_bind(path: str) -> None:
    assert refusal(protected=(path,)).message.startswith("protected: ")


@pytest.mark.parametrize("device", ["/dev/sda", "/dev/*", "/dev/dri/../sda", "/dev/kvm", "dri/*", "/dev/[n]vidia0", "/dev/mem"])
def test_devices_other_than_gpus(device: str) -> None:
    assert refusal(devices=(device,)).message.startswith("devices: ")


@pytest.mark.parametrize(
    ("field", "group"), [("allow_syscalls", "mounts"), ("allow_syscalls", "network"), ("deny_syscalls", "files")]
)
def test_groups_of_calls_that_cannot_be_chosen(field: str, group: str) -> None:
    assert refusal(**{field: (group,)}).message.startswith(f"{field}: {group} is no group that can be")
