"""The demo holds on a machine with a configuration of its user's, and cleans up however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.daemon import ROOT

pytestmark = pytest.mark.slow
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import run
run.KEPT = Path(sys.argv[2])
{change}
sys.exit(run.main())
"""
BROKEN_GRAPH = "run._graph = lambda workspace, home: [{'argv': 'not a list'}]"


class Demo:
    """The demo as a process, with everything that it may write under `base`."""

    def __init__(self, base: Path) -> None:
        self.kept = base / "kept"
        self.temporary = base / "tmp"
        self.temporary.mkdir()
        self.config = base / "home" / ".config" / "agent-supervisor" / "config.toml"
        self.config.parent.mkdir(parents=True)
        self.config.write_text("this is not a configuration")

    def start(self, change: str = "") -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", DRIVER.format(change=change), str(ROOT / "examples" / "demo"), str(self.kept)]
        user_s = {
            "HOME": str(self.config.parents[2]),
            "XDG_CONFIG_HOME": str(self.config.parents[1]),
            "AGENT_SUPERVISOR_CONFIG": str(self.config),
            "TMPDIR": str(self.temporary),
        }
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **user_s})

    def leftovers(self) -> list[Path]:
        return list(self.temporary.iterdir())


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return Demo(tmp_path_factory.mktemp("d"))  # the path of a socket in it must stay short


def pids_in(said: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"(?:supervisor up|started it again), pid (\d+)", said)]


def test_all_of_it_holds_and_what_it_names_is_there(demo: Demo) -> None:
    process = demo.start()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    named = [Path(line.strip()) for line in said.splitlines() if f" {demo.kept}/" in line]
    assert {path.name for path in named} == {"results", "logs", "daemon.log", "report.md"}
    assert all(path.exists() for path in named)
    assert (demo.kept / "report.md").read_text() in said
    assert len(list((demo.kept / "results").iterdir())) == 7
    assert demo.leftovers() == []
    assert len(pids_in(said)) == 2
    assert not any(map(psutil.pid_exists, pids_in(said)))


def test_a_failure_is_told_in_words_with_the_daemon_s_log(demo: Demo) -> None:
    process = demo.start(BROKEN_GRAPH)
    said, _ = process.communicate()
    assert process.returncode == 1
    assert "FAILED: delegate:" in said
    assert "tasks[0].argv: must be a list." in said
    assert "the end of the daemon's log:" in said
    assert "Traceback" not in said
    assert demo.leftovers() == []
    assert not any(map(psutil.pid_exists, pids_in(said)))


@pytest.mark.parametrize(("number", "when"), [(signal.SIGINT, "in the middle"), (signal.SIGTERM, "delegated over MCP")])
def test_a_signal_ends_it_and_its_daemon(demo: Demo, number: signal.Signals, when: str) -> None:
    process = demo.start()
    assert process.stdout is not None
    said = ""
    while when not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(number)
    rest, _ = process.communicate()
    said += rest
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert demo.leftovers() == []
    assert not any(map(psutil.pid_exists, pids_in(said)))
