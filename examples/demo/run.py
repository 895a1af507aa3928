"""The main job, end to end: `make demo`.

Starts a private supervisor, delegates a graph to it over MCP as a coding agent would, kills the daemon in the middle, starts it
again, and checks that nothing acknowledged was lost and that a worker cannot read what it was not given. Exit code 0 only if all
of it held.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "demo"
SECRET = "-----BEGIN PRIVATE KEY----- the demo's canary"
SOURCES = ("supervisord_agents", "sandbox", "examples")
BIN = Path(sys.executable).parent
LOG_LINES = 30
LIVE_S = 1.0
"""Between two looks at how it goes."""


class Failed(Exception):
    """Something that the demo promises did not hold."""


class Supervisor:
    """A private daemon with its own socket, state and home directory."""

    def __init__(self, base: Path) -> None:
        self.socket = base / "supervisor.sock"
        self.state = base / "state"
        self.log = base / "daemon.log"
        self.environment = {**os.environ, "HOME": str(base / "home")}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [str(BIN / "agent-supervisor"), "--socket", str(self.socket), "--state-dir", str(self.state)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, env=self.environment, stdin=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while self.agentctl("status", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > until:
                raise Failed(f"the daemon did not start; its log:\n{self.log_end()}")
            time.sleep(0.05)

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=30)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def agentctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [str(BIN / "agentctl"), "--socket", str(self.socket), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=check, env=self.environment)


def main() -> int:
    base = Path(tempfile.mkdtemp(prefix="agent-supervisor-demo-"))
    supervisor = Supervisor(base)
    began = time.monotonic()
    try:
        _prepare(base)
        supervisor.start()
        say(f"supervisor up, pid {supervisor.pid}; everything of it lies in {base}")
        asyncio.run(_job(supervisor, base / "workspace"))
        code = supervisor.end(signal.SIGTERM)
        if code != 0:
            raise Failed(f"the daemon stopped with exit code {code}; its log:\n{supervisor.log_end()}")
        _keep(base)
        say(f"all of it held, in {time.monotonic() - began:.1f} s; {base} is removed again")
        return 0
    except Failed as error:
        say(f"FAILED: {error}")
        _stop_quietly(supervisor)
        return 1
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _prepare(base: Path) -> None:
    """A workspace with a copy of this repository's sources, and a home with a secret."""
    workspace = base / "workspace"
    for name in SOURCES:
        shutil.copytree(ROOT / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "examples" / "demo" / "survey.py", workspace / "survey.py")
    ssh = base / "home" / ".ssh"
    ssh.mkdir(parents=True)
    (ssh / "id_ed25519").write_text(SECRET)


def _graph(workspace: Path, home: Path) -> list[dict[str, Any]]:
    common = {"workspace": str(workspace), "timeout_s": 60}
    plan = {**common, "id": "A", "function": "survey:plan"}
    shares = [
        {**common, "id": f"B{number}", "function": "survey:survey", "input": {"args": [number - 1]}, "depends_on": ["A"]}
        for number in range(1, 5)
    ]
    names = [share["id"] for share in shares]
    report = {**common, "id": "C", "function": "survey:report", "depends_on": names, "priority": 0}
    thief = {
        "id": "thief",
        "argv": ["sh", "-c", f"cat {home}/.ssh/id_* /root/.ssh/id_* ~/.ssh/id_*"],
        "workspace": "none",
        "max_retries": 0,
    }
    return [plan, *shares, report, thief]


async def _job(supervisor: Supervisor, workspace: Path) -> None:
    bridge = StdioServerParameters(
        command=str(BIN / "agentctl"), args=["--socket", str(supervisor.socket), "mcp"], env=supervisor.environment
    )
    async with Client(stdio_client(bridge)) as client:
        tasks = _graph(workspace, Path(supervisor.environment["HOME"]))
        accepted = await _call(client, "delegate", {"tasks": tasks})
        graph, ids = accepted["graph"], accepted["tasks"]
        say(f"delegated over MCP: graph {graph}, A → [B1 … B4] → C, and a thief")
        await _until_shares_run(client, graph)
        waiting = asyncio.create_task(_call(client, "wait", {"ids": [graph], "timeout_s": 50}))
        await asyncio.to_thread(_kill_and_restart, supervisor)
        await _show_until(waiting, client, graph)
        end = await waiting
        _check(end, ids)
        for task in end["tasks"]:
            if task["id"].endswith(".thief"):
                await _show_thief(client, task)
        report = await _call(client, "result", {"id": f"{graph}.C"})
        print(f"\n{report['output']}")
        _table(supervisor, graph)


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    async def progress(progress: float, total: float | None, message: str | None) -> None:
        say(f"  … {message or progress}")

    answer = await client.call_tool(tool, arguments, progress_callback=progress)
    if answer.is_error or not isinstance(answer.structured_content, dict):
        raise Failed(f"{tool}: {answer.content}")
    return answer.structured_content


async def _until_shares_run(client: Client, graph: str) -> None:
    await _call(client, "wait", {"ids": [f"{graph}.A"], "timeout_s": 30})
    say("A is done, its dependents may run")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        running = (await _call(client, "status", {"graph": graph})).get("running", [])
        if sum(bool(task.get("progress")) for task in running) > 1:
            say("in the middle: " + ", ".join(f"{task['id']} {task.get('progress', 'started')}" for task in running))
            return
        await asyncio.sleep(0.1)
    raise Failed("the dependents of A did not start in time")


def _kill_and_restart(supervisor: Supervisor) -> None:
    supervisor.end(signal.SIGKILL)
    say(f"killed the daemon (pid {supervisor.pid}) with SIGKILL, in the middle of its work")
    supervisor.start()
    recovery = json.loads(supervisor.agentctl("--json", "status").stdout)["recovery"]
    say(
        f"started it again, pid {supervisor.pid}: {recovery['tasks']} tasks recovered, {recovery['requeued']} running ones"
        f" queued again, {recovery['adopted']} unseen ends adopted, in {recovery['seconds']:.2f} s"
    )


async def _show_until(waiting: asyncio.Task[dict[str, Any]], client: Client, graph: str) -> None:
    """Say how it goes until the wait, which has outlived the daemon, returns."""
    while not waiting.done():
        now = await _call(client, "status", {"graph": graph})
        running = [f"{task['id']} {task.get('progress', '')}".strip() for task in now.get("running", [])]
        say(f"  … {now['counts'].get('succeeded', 0)} succeeded; running: {', '.join(running) or 'none'}")
        await asyncio.wait([waiting], timeout=LIVE_S)


def _check(end: dict[str, Any], ids: list[str]) -> None:
    if not end["done"]:
        raise Failed("the graph did not end in time")
    states = {task["id"]: task["state"] for task in end["tasks"]}
    if set(states) != set(ids):
        raise Failed(f"acknowledged {sorted(ids)}, but found {sorted(states)}")
    wrong = {name: state for name, state in states.items() if state != ("failed" if name.endswith(".thief") else "succeeded")}
    if wrong:
        raise Failed(f"unexpected ends: {wrong}")


async def _show_thief(client: Client, task: dict[str, Any]) -> None:
    result = await _call(client, "result", {"id": task["id"]})
    if SECRET in json.dumps(result):
        raise Failed("a worker read a private key")
    say("a worker that tried to read ~/.ssh was refused:")
    for line in str(result["output"]["stderr"]).strip().splitlines():
        print(f"      {line}")


def _table(supervisor: Supervisor, graph: str) -> None:
    listing = supervisor.agentctl("--json", "list", "--graph", graph).stdout
    rows = sorted(json.loads(listing)["tasks"], key=lambda row: str(row["id"]))
    print(f"{'task':<16}{'agent':<10}{'state':<12}{'seconds':>8}{'attempts':>10}")
    for row in rows:
        seconds = row["ended_at"] - row["started_at"]
        print(f"{row['id']:<16}{row['agent']:<10}{row['state']:<12}{seconds:>8.2f}{row['attempt']:>10}")
    print(f"\nresults  {supervisor.state}/results\nlogs     {supervisor.state}/logs\njournal  {supervisor.state}/journal\n")


def _keep(base: Path) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    shutil.copy(base / "workspace" / "report.md", KEPT / "report.md")
    say(f"the report is kept: {KEPT / 'report.md'}")


def _stop_quietly(supervisor: Supervisor) -> None:
    try:
        supervisor.end(signal.SIGTERM)
    except (AssertionError, OSError, subprocess.TimeoutExpired):
        say(f"the daemon could not be stopped in order; its log:\n{supervisor.log_end()}")


_start = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _start:5.1f}s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
