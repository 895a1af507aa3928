"""The environment of programs inside the sandbox: built from nothing, so that only what is named here or by the user is there."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import msgspec

from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agent_step import STEPS_ENV

SEARCH_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
OF_THE_SANDBOX = ("TMPDIR", "GIT_CONFIG_NOSYSTEM")
TASK_FILE_ENV = "AGENT_SUPERVISOR_TASK"
"""Names a JSON file `{task, attempt, input, dependencies, steps}`, with `undoes` in one that undoes a task."""
TASK_FILE = ".agent-supervisor-task.json"
STEP_SOCKET = ".agent-supervisor-steps"
STEP_PROGRAM = ".agent-supervisor/bin/agent-step"


def proxy_environment(port: int) -> dict[str, str]:
    """The variables that lead a program's connections to the gateway; none if there is no gateway (port 0).

    Without them a program is only told that a name does not resolve; the gateway says what is refused and why, in the task's log.
    """
    if not port:
        return {}
    proxy = f"http://127.0.0.1:{port}"
    named = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "127.0.0.1,localhost,::1"}
    # Programs differ in which case they read.
    return named | {name.lower(): value for name, value in named.items()}


def base_environment(home: Path, task: RunTask) -> dict[str, str]:
    """What every program gets; the agent's configured `environment` wins over it."""
    settings = task.settings
    return {
        **proxy_environment(task.gateway_port),
        "PATH": ":".join((*settings.get("search_path", ()), *SEARCH_PATH, str((home / STEP_PROGRAM).parent))),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        # The sandbox's own; what the sandbox says of it, if it has no namespaces.
        "TMPDIR": "/tmp",
        **{name: os.environ[name] for name in OF_THE_SANDBOX if name in os.environ},
        TASK_FILE_ENV: str(home / TASK_FILE),
        STEPS_ENV: str(home / STEP_SOCKET),
        **settings.get("environment", {}),
    }


def quiet_environment(home: Path) -> dict[str, str]:
    """For the coding CLIs: everything they write stays in the private home, and nothing asks, updates or phones home."""
    return {
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "CI": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "NO_BROWSER": "1",
        "BROWSER": "/bin/false",
        "DO_NOT_TRACK": "1",
        "NO_UPDATE_NOTIFIER": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def task_file(task: RunTask) -> bytes:
    """The content of TASK_FILE."""
    content = {
        "task": task.task,
        "attempt": task.attempt,
        "input": task.spec.input,
        "dependencies": msgspec.to_builtins(task.dependencies),
        "steps": msgspec.to_builtins(task.steps),
        **({"undoes": task.undoes} if task.undoes else {}),
    }
    return json.dumps(msgspec.to_builtins(content, str_keys=True), ensure_ascii=False, indent=1).encode(
        "utf-8", "backslashreplace"
    )


def step_program() -> bytes:
    """The content of STEP_PROGRAM."""
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -m supervisord_agents.workers.agent_step "$@"\n'.encode()
