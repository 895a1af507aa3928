"""The fork server's end is every sandbox's, whatever a program has done; and what a killed one leaves is swept up by the next."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from sandbox import spawner as spawner_module
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from tests.support.sandbox import Maker, cgroup_directories, pipe

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
CLEARS_ITS_DEATH_SIGNAL = """
import ctypes, signal
print("cleared", ctypes.CDLL(None).prctl(1, 0, 0, 0, 0), flush=True)
signal.pause()
"""
EXECS_FROM_A_THREAD = """
import os, threading
threading.Thread(target=os.execvp, args=("sh", ("sh", "-c", "echo cleared 0; sleep 1000"))).start()
threading.Event().wait()
"""
"""A thread has no parent-death signal, and after its exec the process has none (prctl(2))."""
NO_CGROUPS = """
import sys; sys.path[:0] = sys.argv.pop(1).split(":")
from sandbox import keeper, server
server.Cgroups.detect = classmethod(lambda cls, name: cls(None, "there are none in this test."))
sys.exit(keeper.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("code", [CLEARS_ITS_DEATH_SIGNAL, EXECS_FROM_A_THREAD], ids=["prctl", "thread"])
@pytest.mark.parametrize("victim", ["keeper", "server"])
async def test_no_program_outlives_it(code: str, victim: str) -> None:
    spawner = Spawner.start(cgroup_name=f"test-outlive-{os.getpid()}")
    with pipe() as (reader, writer):
        sandbox = await spawner.spawn(SandboxSpec(argv=("python3", "-c", code), env=ENV), {1: writer.fileno()})
        writer.close()
        assert reader.readline() == "cleared 0\n"
        server = psutil.Process(sandbox.pid).parent()
        assert server is not None
        assert server.ppid() == spawner._process.pid
        os.kill(server.pid if victim == "server" else spawner._process.pid, signal.SIGKILL)
        assert reader.read() == ""  # no writer is left
    await spawner.gone()
    assert (await sandbox.wait()).signal == signal.SIGKILL
    await spawner.aclose()
    await Spawner.start(cgroup_name=f"test-outlive-{os.getpid()}").aclose()  # takes the killed one's cgroups away


def test_a_program_cannot_read_what_its_first_process_remembers(by: Maker) -> None:
    """It is a copy of the fork server, which has had other sandboxes' environments in its hands (proc_pid_mem(5))."""
    code = """
import json, os
found = {}
for name in ("mem", "environ", "maps"):
    try:
        with open(f"/proc/1/{name}", "rb") as file:
            found[name] = len(file.read(1)) if name != "mem" else "open"
    except OSError as error:
        found[name] = error.strerror
try:
    found["fd"] = os.listdir("/proc/1/fd")
except OSError as error:
    found["fd"] = error.strerror
print(json.dumps(found))
"""
    assert by.python(code) == dict.fromkeys(("mem", "environ", "maps", "fd"), "Permission denied")


@pytest.fixture
async def without_cgroups(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Spawner]:
    monkeypatch.setattr(spawner_module, "_SERVE", NO_CGROUPS)
    started = Spawner.start(cgroup_name=f"test-none-{os.getpid()}")
    yield started
    await started.aclose()


@pytest.mark.parametrize("limit", [{"memory_bytes": 1 << 28}, {"pids": 30}, {"cpu_percent": 50}])
async def test_a_limit_that_nothing_holds_is_refused_by_its_name(without_cgroups: Spawner, limit: dict[str, int]) -> None:
    [(name, value)] = limit.items()
    with pytest.raises(spawner_module.SandboxError) as refused:
        await without_cgroups.spawn(SandboxSpec(argv=("true",), env=ENV, **limit), {})
    assert refused.value.message == f"nothing here can hold {name} = {value}: there are none in this test."
    assert "optional_layers" in refused.value.hint
    for spec in (
        SandboxSpec(argv=("true",), env=ENV),
        SandboxSpec(argv=("true",), env=ENV, optional_layers=("cgroup",), **limit),
    ):
        assert (await (await without_cgroups.spawn(spec, {})).wait()).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's own processes would count too")
async def test_without_cgroups_processes_are_still_limited_for_a_user_of_its_own(without_cgroups: Spawner) -> None:
    forks = (
        "import os, signal\nmade = 0\ntry:\n    while made < 60:\n        if os.fork() == 0: signal.pause()\n        made += 1\n"
        "except BlockingIOError: pass\nprint(made, flush=True)"
    )
    with pipe() as (reader, writer):
        spec = SandboxSpec(argv=("python3", "-c", forks), env=ENV, pids=10, uid=1_900_123_456, optional_layers=("cgroup",))
        sandbox = await without_cgroups.spawn(spec, {1: writer.fileno()})
        writer.close()
        assert (await sandbox.wait()).code == 0
        assert reader.read() == "9\n"


async def test_what_a_killed_one_leaves_is_swept_by_the_next() -> None:
    killed_name, other_name = f"test-sweep-{os.getpid()}1", f"test-sweep-of-others-{os.getpid()}"
    killed = Spawner.start(cgroup_name=killed_name)
    other = Spawner.start(cgroup_name=other_name)
    if killed.cgroup == "none":
        pytest.skip(str(killed.limits))
    await killed.spawn(SandboxSpec(argv=("sleep", "1000"), env=ENV, pids=10), {})
    await other.spawn(SandboxSpec(argv=("sleep", "1000"), env=ENV, pids=10), {})
    os.kill(killed._process.pid, signal.SIGKILL)
    await killed.gone()
    await killed.aclose()
    left, held = _names(killed_name), _names(other_name)
    assert left
    following = Spawner.start(cgroup_name=f"test-sweep-{os.getpid()}2")
    assert _names(killed_name) == []
    assert _names(other_name) == held  # another name, and in use
    await following.aclose()
    await other.aclose()


def _names(name: str) -> list[Path]:
    return sorted(cgroup_directories(name))
