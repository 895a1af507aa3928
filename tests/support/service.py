"""The supervisor as a service of a guest: of the machine, or of one user."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from tests.support.guest import COMMAND_TIMEOUT_S, Done, Guest

NAMESPACES = ("mount", "pid", "net", "ipc", "uts", "cgroup")
LAYERS = {
    *(f"{name} namespace" for name in NAMESPACES),
    *("cgroup memory", "cgroup pids", "cgroup cpu", "pivot_root", "no_new_privs", "seccomp", "landlock files"),
}
"""What must be on in the guest, whoever runs the service."""


class Service:
    """One installed unit; commands run as root, or as `user` with the environment of a login."""

    def __init__(self, machine: Guest, user: str = "") -> None:
        self.machine = machine
        self._systemctl = "systemctl --user" if user else "systemctl"
        self._journalctl = f"journalctl --no-pager {'--user' if user else ''} -u agent-supervisor"
        self._as_user = ""
        if user:
            uid = machine.check(f"id -u {user}").strip()
            environment = f"HOME=/home/{user} XDG_RUNTIME_DIR=/run/user/{uid} PATH=/home/{user}/.local/bin:/usr/bin:/bin"
            self._as_user = f"cd /home/{user} && exec runuser -u {user} -- env {environment} sh -c "

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        command = self._as_user + shlex.quote(command) if self._as_user else command
        return self.machine.run(command, stdin=stdin, timeout_s=timeout_s)

    def check(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        done = self.run(command, stdin=stdin, timeout_s=timeout_s)
        assert done.code == 0, f"{command}: {done}"
        return done.stdout

    def control(self, verb: str) -> str:
        return self.check(f"{self._systemctl} {verb} agent-supervisor.service")

    def shows(self, name: str) -> str:
        """A property of the unit."""
        return self.check(f"{self._systemctl} show --property={name} --value agent-supervisor.service").strip()

    def await_shown(self, name: str, value: str) -> None:
        asked = f"{self._systemctl} show --property={name} --value agent-supervisor.service"
        self.check(f"timeout 120 sh -c 'until [ \"$({asked})\" = {value} ]; do sleep 0.2; done'")

    def journal(self, since: str = "") -> list[dict[str, str]]:
        """The unit's entries, oldest first; `since` is an earlier `now_in_journal`."""
        self.machine.check("journalctl --sync")
        lines = self.check(f"{self._journalctl} -o json {since}").splitlines()
        return [json.loads(line) for line in lines]

    def now_in_journal(self) -> str:
        """An option of journalctl that shows only what comes from now on, and only with the filter it was made with."""
        (_, _, cursor) = self.run(f"{self._journalctl} -n 0 --show-cursor").stdout.partition("-- cursor: ")
        return f"--after-cursor={shlex.quote(cursor.strip())}" if cursor else ""

    def agentctl(self, command: str, *, stdin: str = "") -> Any:
        """What a command says as JSON; it must succeed."""
        return json.loads(self.check(f"agentctl --json {command}", stdin=stdin))

    def status(self) -> Any:
        return self.agentctl("status")

    def enforced(self) -> set[str]:
        """The layers of the sandbox that are on."""
        return {name for name, how in self.status()["enforcement"].items() if how == "on"}

    def submit(self, *argv: str, **task: Any) -> str:
        """Submit one command and give its id."""
        graph = {"tasks": [{"id": "t", "input": {"argv": argv}, "max_retries": 0, **task}]}
        (name,) = self.agentctl("submit --file -", stdin=json.dumps(graph))["tasks"]
        return str(name)

    def ended(self, task: str) -> Any:
        """Everything about a task, once it has ended."""
        self.run(f"agentctl wait --timeout 120 {task}")
        return self.agentctl(f"show {task}")["task"]

    def process(self, arguments: str) -> str:
        """Wait until a program runs with exactly these arguments; gives its pid on the machine."""
        pattern = re.sub(r"[][\\.*+?^$(){}|]", r"\\\g<0>", arguments)  # pgrep(1) takes an extended regular expression
        found = f"pgrep -fx {shlex.quote(pattern)}"
        return self.machine.wait_for(found, timeout_s=120).split()[0]

    def cgroup(self, pid: str) -> str:
        """The directory of a process's cgroup."""
        path = self.machine.check(f"cut -d: -f3 /proc/{pid}/cgroup").strip()
        return f"/sys/fs/cgroup{path}"
