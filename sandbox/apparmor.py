"""An AppArmor profile for the fork server alone, where the host gives user namespaces only to programs with a profile.

A profile is found by the path of what is executed, and our interpreter is everybody's. So root installs a launcher of our own: a
script whose interpreter runs under the profile of the script, with the copy of this package that lies beside it. Whoever starts
it gets a fork server, or the trials of `doctor`, and nothing else, as far as he does not take over its process: like the
profiles that distributions load for browsers, it keeps the restriction for all other programs. Source: apparmor.d(5), execve(2).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path

from sandbox.errors import SandboxError

HOME = Path("/usr/local/lib/agent-sandbox")
PROFILE = Path("/etc/apparmor.d/agent-sandbox-spawner")
SWITCH = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_LAUNCHER = """#!{python} -IS
import sys
sys.path.insert(0, {packages!r})
if sys.argv[1:] == ["trials"]:
    from sandbox.probe_child import main
    main()
else:
    from sandbox.keeper import main
    sys.exit(main(sys.argv[1:]))
"""
_TEXT = """# The fork server of agent-sandbox may make user namespaces. Written by: agentctl install apparmor
abi <abi/4.0>,

profile agent-sandbox-spawner {launcher} flags=(unconfined) {{
  userns,
}}
"""


def profile(home: Path = HOME) -> str:
    """The text of the profile."""
    return _TEXT.format(launcher=home / "spawner")


def restricted() -> bool:
    """Whether this host gives user namespaces only to programs with a profile."""
    with contextlib.suppress(OSError):
        return Path(SWITCH).read_text().strip() == "1"
    return False


def launcher(home: Path = HOME) -> str:
    """What an ordinary user's fork server is started by; empty: nothing is installed, or it is of another version than this.

    Whoever installed it wants that, whichever of AppArmor's rules it is that keeps user namespaces from other programs.
    """
    with contextlib.suppress(OSError):
        if os.geteuid() != 0 and (home / "digest").read_text() == digest():
            return str(home / "spawner")
    return ""


@cache
def digest() -> str:
    """Of the sources of this package and of the interpreter that they are for."""
    found = hashlib.sha256(sys.version.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()


def install(home: Path = HOME, file: Path = PROFILE) -> None:
    """Put the launcher and the profile there, in place of earlier ones, and load the profile. Needs root.

    Raises SandboxError, with what was made taken away again, where that cannot be.
    """
    if os.geteuid() != 0:
        raise SandboxError("only root can load a profile.", step="apparmor", hint="Run: sudo agentctl install apparmor")
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin")
    if parser is None:
        raise SandboxError("there is no apparmor_parser.", step="apparmor", hint="Install the package apparmor.")
    python = _trusted_interpreter()
    remove(home, file)
    try:
        _write_launcher(home, python)
        file.write_text(profile(home))
        subprocess.run([parser, "--replace", str(file)], check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        remove(home, file)
        hint = "The words `userns` and abi/4.0 need AppArmor 4.0, as in Ubuntu 24.04. Nothing was kept."
        raise SandboxError(f"apparmor_parser: {error.stderr.strip()}.", step="apparmor", hint=hint) from error
    except (OSError, subprocess.SubprocessError) as error:
        remove(home, file)
        raise SandboxError(f"{error}. Nothing was kept.", step="apparmor") from error


def remove(home: Path = HOME, file: Path = PROFILE) -> None:
    """Unload the profile, if it is loaded, and remove it and the launcher. Raises OSError."""
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin")
    if parser and file.exists():
        subprocess.run([parser, "--remove", str(file)], check=False, capture_output=True, timeout=60)
    file.unlink(missing_ok=True)
    if home.exists():
        shutil.rmtree(home)


def _trusted_interpreter() -> str:
    """Ours, which nobody but root may exchange. Raises SandboxError for one that a user could."""
    python = os.path.realpath(sys.executable)
    for path in (Path(python), *Path(python).parents):
        status = path.stat()
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022 or path == Path("/root"):
            what = f"{python} is not root's alone to change and everybody's to run: {path}."
            raise SandboxError(what, step="apparmor", hint="Install with the system's own Python 3.11 or newer.")
    return python


def _write_launcher(home: Path, python: str) -> None:
    import msgspec
    import pyseccomp

    packages = home / "packages"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(__file__).parent, packages / "sandbox", ignore=ignore)
    shutil.copytree(Path(msgspec.__file__).parent, packages / "msgspec", ignore=ignore)
    shutil.copy(pyseccomp.__file__, packages)
    script = home / "spawner"
    script.write_text(_LAUNCHER.format(python=python, packages=str(packages)))
    (home / "digest").write_text(digest())
    _belong_to_root(home)
    script.chmod(0o755)


def _belong_to_root(home: Path) -> None:
    """Whoever the copied files belonged to, and whatever the umask."""
    for directory, _, files in os.walk(home):
        for path in (Path(directory), *(Path(directory, name) for name in files)):
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() else 0o644)
