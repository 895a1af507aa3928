"""A daemon of an ordinary user on a host that lacks something, though the tests may be root's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.support import forbidding
from tests.support.daemon import DaemonProcess
from tests.support.sandbox import Maker

MAIN = "import sys; from supervisord_agents.{0} import main; sys.exit(main())"


def showing(*paths: object) -> str:
    """The profile `here`, for the configuration of a daemon whose workers are to see these paths."""
    sources = ", ".join(f"{{ source = '{path}' }}" for path in paths)
    return f"[profiles.here]\nextends = 'agent'\npaths = [{sources}]\n"


class OrdinaryDaemon(DaemonProcess):
    """It runs from an environment of its own, with an interpreter that the user can reach, and our installed packages."""

    def __init__(self, by: Maker, config: str, *, lacking: str) -> None:
        directory = by.directory("daemon")
        packages = sysconfig.get_path("purelib")
        super().__init__(directory, f"[sandbox]\nprofile = 'here'\n{config}{showing(packages, f'{by.home}/source')}")
        subprocess.run([by.interpreter[-1], "-m", "venv", "--without-pip", directory / "venv"], check=True, timeout=60)
        source = by.home / "source"
        if not source.exists():
            ignore = shutil.ignore_patterns("__pycache__")
            for package in ("sandbox", "supervisord_agents"):
                shutil.copytree(Path(__file__).parents[2] / package, source / package, ignore=ignore)
        inside = next((directory / "venv" / "lib").glob("python*")) / "site-packages"
        (inside / "ours.pth").write_text(f"{source}\n{packages}\n")
        script = by.home / "forbidding.py"
        shutil.copy(forbidding.__file__, script)
        python = str(directory / "venv" / "bin" / "python")
        self._as_user = by.interpreter[:-1]
        self._python = python
        self.argv = [*self._as_user, python, str(script), lacking, "--", python, "-P", "-c", MAIN.format("daemon.app")]
        usual = {"PATH": os.environ["PATH"], "HOME": str(by.home), "AGENT_SUPERVISOR_CONFIG": str(self.config)}
        self.environment = usual

    def agentctl(self, *arguments: str, stdin: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        argv = [*self._as_user, self._python, "-P", "-c", MAIN.format("cli.main"), "--socket", str(self.socket), *arguments]
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=self.environment, timeout=timeout_s, check=False
        )
