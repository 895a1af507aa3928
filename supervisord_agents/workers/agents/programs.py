"""Programs of the host that a sandbox must show: where they are, and which directories they need to run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from supervisord_agents.errors import SandboxRefused
from supervisord_agents.workers.agents.base import Requirements

SYSTEM_PREFIXES = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt")
SHEBANG_BYTES = 256
"""BINPRM_BUF_SIZE of the kernel."""


def requirements(name: str, program: str, settings: dict[str, Any]) -> Requirements:
    """What the agent `name` needs to run `program`; raises SandboxRefused if it, or its interpreter, is not on this host."""
    found = find(program, settings.get("executable", ""))
    if found is None:
        wanted = settings.get("executable") or program
        looked = "" if "/" in wanted else f" Looked for on the daemon's PATH: {os.environ.get('PATH', '')}."
        raise SandboxRefused(
            f"the program `{wanted}` of the agent `{name}` is not on this host.{looked}",
            field=f"agents.{name}.executable",
            hint=f'Install it, or set `executable = "/path/to/{program}"` in [agents.{name}] of the configuration.',
        )
    interpreter = find_interpreter(found)
    executables = (found,) if interpreter is None else (found, interpreter)
    shown = [package_tree(path) for path in executables if not _is_system(path)]
    for tree in shown:
        if _holds_a_home(tree):
            raise SandboxRefused(
                f"the program `{found}` of the agent `{name}` lies in {tree}, which a worker must not see as a whole.",
                field=f"agents.{name}.executable",
                hint="Move it into a directory of its own, such as /opt/NAME or ~/.local/NAME, and name it there.",
            )
    return Requirements(tuple(dict.fromkeys((*shown, *settings.get("read_only_paths", ())))))


def find(program: str, executable: str) -> str | None:
    """The real path of `executable`, or of `program` on the PATH of this process; None if there is none."""
    found = shutil.which(executable or program) if executable or program else None
    return os.path.realpath(found) if found else None


def find_interpreter(program: str) -> str | None:
    """The real path of the interpreter that a script names by `#!/usr/bin/env NAME`, or None."""
    try:
        with open(program, "rb") as file:
            first = file.read(SHEBANG_BYTES).split(b"\n", 1)[0]
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    if len(words) < 2 or os.path.basename(words[0]) != b"env":
        return None
    name = next((word for word in words[1:] if not word.startswith(b"-") and b"=" not in word), b"")
    return find(os.fsdecode(name), "")


def search_path(interpreter: str | None) -> list[str]:
    """The directories that PATH needs inside the sandbox for a script to find its interpreter."""
    if interpreter is None or _is_system(interpreter):
        return []
    return [os.path.dirname(interpreter)]


def package_tree(path: str) -> str:
    """The directory to show for a program: its `node_modules`, else the prefix above its `bin`, else its own directory.

    A home directory and `.local` are no prefixes: beside a `bin` they hold what is nobody's business.
    """
    parts = Path(path).parts
    if "node_modules" in parts:
        return str(Path(*parts[: parts.index("node_modules") + 1]))
    parent = Path(path).parent
    prefix = parent.parent
    private = _holds_a_home(str(prefix)) or prefix.name == ".local"
    return str(prefix if parent.name == "bin" and not private else parent)


def _holds_a_home(directory: str) -> bool:
    """True for a home directory and all above it."""
    path = Path(directory)
    home = Path(os.path.expanduser("~"))
    return path == home or path in home.parents or path.parent == Path("/home") or path == Path("/home")


def _is_system(path: str) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in SYSTEM_PREFIXES)
