"""The main job, end to end: `make demo`.

Starts a private supervisor, delegates a graph to it over MCP as a coding agent would, kills the daemon in the middle, starts it
again, and checks that nothing acknowledged was lost and that a worker cannot read what it was not given. Exit code 0 only if all
of it held. What is worth a look is kept under build/demo; everything else is removed again.
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
PATIENCE_S = 60.0
"""For each step, on a machine that does other things too."""
INTERRUPTED = 130
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")
"""Of the user's environment; all else, such as a configuration of theirs, is none of this supervisor's business."""


class Failed(Exception):
    """Something that the demo promises did not hold."""


class Supervisor:
    """A private daemon with its own socket, state and home directory."""

    def __init__(self, base: Path) -> None:
        self.socket = base / "supervisor.sock"
        self.state = base / "state"
        self.log = base / "daemon.log"
        self.config = base / "config.toml"
        self.home = base / "home"
        own = {"HOME": str(self.home), "AGENT_SUPERVISOR_CONFIG": str(self.config)}
        self.environment = {**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **own}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [str(BIN / "agent-supervisor"), "--socket", str(self.socket), "--state-dir", str(self.state)]
        with self.log.open("ab") as log:
            # In a session of its own: Ctrl-C is for the demo, which then stops it.
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        until = time.monotonic() + PATIENCE_S
        while self.agentctl("status", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > until:
                raise Failed("the daemon did not start")
            time.sleep(0.05)

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=PATIENCE_S)

    def stop(self) -> None:
        """End it if it still runs, whatever it takes."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            self.end(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.end(signal.SIGKILL)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log_end(self) -> str:
        """The last lines that it wrote."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def agentctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [str(BIN / "agentctl"), "--socket", str(self.socket), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=check, env=self.environment)


def main() -> int:
    # So that this, too, stops the daemon on the way out, and in the loop by a cancellation (asyncio.Runner sees to SIGINT alone).
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    base = Path(tempfile.mkdtemp(prefix="agent-supervisor-demo-"))
    supervisor = Supervisor(base)
    try:
        return _demo(base, supervisor)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except Exception as error:
        say(f"FAILED: {_told(error)}")
        if log := supervisor.log_end():
            print(f"\nthe end of the daemon's log:\n{log}\n")
        return 1
    finally:
        supervisor.stop()
        shutil.rmtree(base, ignore_errors=True)


def _demo(base: Path, supervisor: Supervisor) -> int:
    workspace = base / "workspace"
    _prepare(base, supervisor)
    supervisor.start()
    say(f"supervisor up, pid {supervisor.pid}; everything of it lies in {base}")
    asyncio.run(_job(supervisor, workspace))
    code = supervisor.end(signal.SIGTERM)
    if code != 0:
        raise Failed(f"the daemon stopped with exit code {code}")
    _keep(supervisor, workspace)
    shutil.rmtree(base)
    say(f"all of it held; {base} is removed again")
    return 0


def _told(error: Exception) -> str:
    if isinstance(error, Failed):
        return str(error)
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error}: {error.stderr}"
    return f"{type(error).__name__}: {error}"


def _prepare(base: Path, supervisor: Supervisor) -> None:
    """A workspace with a copy of this repository's sources, a configuration, and a home with a secret."""
    workspace = base / "workspace"
    for name in SOURCES:
        shutil.copytree(ROOT / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "examples" / "demo" / "survey.py", workspace / "survey.py")
    # Should the demo itself be interrupted while there is no daemon, its workers do not wait for long. All shares are worked on
    # at once: a pool that grows as tasks wait would need longer than they do.
    supervisor.config.write_text('[daemon]\norphan_grace_s = 15.0\n[pools.standard]\nscaling = "on-demand"\n')
    ssh = supervisor.home / ".ssh"
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
    try:
        async with Client(stdio_client(bridge)) as client:
            await _delegate_and_watch(client, supervisor, workspace)
    except BaseExceptionGroup as group:
        raise _cause(group) from None


def _cause(error: BaseException) -> BaseException:
    """What went wrong, without the groups that the client's task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = (error.subgroup(Failed) or error).exceptions[0]
    return error


async def _delegate_and_watch(client: Client, supervisor: Supervisor, workspace: Path) -> None:
    accepted = await _call(client, "delegate", {"tasks": _graph(workspace, supervisor.home)})
    graph, ids = accepted["graph"], accepted["tasks"]
    say(f"delegated over MCP: graph {graph}, A → [B1 … B4] → C, and a thief")
    await _until_shares_run(client, graph)
    waiting = asyncio.create_task(_until_ended(client, graph))
    try:
        await asyncio.to_thread(_kill_and_restart, supervisor, len(ids))
        await _show_until(waiting, client, graph)
        tasks = await waiting
    finally:
        waiting.cancel()
    _check(tasks, ids)
    await _show_thief(client, f"{graph}.thief")
    await _show_report(client, f"{graph}.C", workspace)
    _table(tasks)


async def _until_ended(client: Client, graph: str) -> list[dict[str, Any]]:
    """The tasks at their end. The wait outlives the daemon; what it is told of progress is shown."""
    told: list[str] = []
    until = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < until:
        end = await _call(client, "wait", {"ids": [graph], "timeout_s": 50}, told)
        if end["done"]:
            if not told:
                raise Failed("the wait told of no progress")
            return list(end["tasks"])
    raise Failed("the graph did not end in time")


async def _call(client: Client, tool: str, arguments: dict[str, Any], told: list[str] | None = None) -> dict[str, Any]:
    """The answer of a tool; `told` collects what it tells of its progress."""

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        say(f"  … {message or progress}")
        if told is not None:
            told.append(message or "")

    answer = await client.call_tool(tool, arguments, progress_callback=progress)
    if answer.is_error or not isinstance(answer.structured_content, dict):
        raise Failed(f"{tool}: {answer.content}")
    return answer.structured_content


async def _until_shares_run(client: Client, graph: str) -> None:
    await _call(client, "wait", {"ids": [f"{graph}.A"], "timeout_s": 30})
    say("A is done, its dependents may run")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        running = (await _call(client, "status", {"graph": graph})).get("running", [])
        if sum(bool(task.get("progress")) for task in running) > 1:
            say("in the middle: " + ", ".join(f"{task['id']} {task.get('progress', 'started')}" for task in running))
            return
        await asyncio.sleep(0.1)
    raise Failed("the dependents of A did not start in time")


def _kill_and_restart(supervisor: Supervisor, acknowledged: int) -> None:
    supervisor.end(signal.SIGKILL)
    say(f"killed the daemon (pid {supervisor.pid}) with SIGKILL, in the middle of its work")
    supervisor.start()
    recovery = json.loads(supervisor.agentctl("--json", "status").stdout)["recovery"]
    say(
        f"started it again, pid {supervisor.pid}: {recovery['tasks']} tasks recovered, {recovery['resumed']} went on meanwhile,"
        f" {recovery['requeued']} queued again, in {recovery['seconds']:.2f} s"
    )
    if recovery["tasks"] != acknowledged:
        raise Failed(f"{acknowledged} tasks were acknowledged, {recovery['tasks']} recovered")
    if recovery["resumed"] == 0:
        raise Failed("nothing ran when the daemon was killed, or it did not go on")


async def _show_until(waiting: asyncio.Task[Any], client: Client, graph: str) -> None:
    """Say how it goes until the wait, which has outlived the daemon, returns."""
    while not waiting.done():
        now = await _call(client, "status", {"graph": graph})
        running = [f"{task['id']} {task.get('progress', '')}".strip() for task in now.get("running", [])]
        say(f"  … {now['counts'].get('succeeded', 0)} succeeded; running: {', '.join(running) or 'none'}")
        await asyncio.wait([waiting], timeout=LIVE_S)


def _check(tasks: list[dict[str, Any]], ids: list[str]) -> None:
    states = {task["id"]: task["state"] for task in tasks}
    if set(states) != set(ids):
        raise Failed(f"acknowledged {sorted(ids)}, but found {sorted(states)}")
    wrong = {name: state for name, state in states.items() if state != ("failed" if name.endswith(".thief") else "succeeded")}
    if wrong:
        raise Failed(f"unexpected ends: {wrong}")
    again = [task["id"] for task in tasks if task["attempt"] != 1]
    if again:
        raise Failed(f"the crash of the daemon made {', '.join(again)} run again")


async def _show_thief(client: Client, name: str) -> None:
    result = await _call(client, "result", {"id": name})
    if SECRET in json.dumps(result) or result["output"]["stdout"]:
        raise Failed(f"a worker read a private key: {result['output']}")
    say("a worker that tried to read ~/.ssh was refused:")
    for line in str(result["output"]["stderr"]).strip().splitlines():
        print(f"      {line}")


async def _show_report(client: Client, name: str, workspace: Path) -> None:
    report = (await _call(client, "result", {"id": name}))["output"]
    say("the report that C wrote:")
    print(f"\n{report}")
    modules = len(list(workspace.rglob("*.py")))
    if f"{modules} modules" not in report or report != (workspace / "report.md").read_text():
        raise Failed(f"the report is wrong, there are {modules} modules")


def _table(tasks: list[dict[str, Any]]) -> None:
    print(f"{'task':<18}{'agent':<10}{'state':<12}{'seconds':>8}{'attempts':>10}")
    for task in sorted(tasks, key=lambda task: str(task["id"])):
        print(f"{task['id']:<18}{task['agent']:<10}{task['state']:<12}{task.get('seconds', 0.0):>8.1f}{task['attempt']:>10}")
    print()


def _keep(supervisor: Supervisor, workspace: Path) -> None:
    """What is worth a look, in place of what the run before had left; and nobody's secret in it."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    for name in ("results", "logs"):
        shutil.copytree(supervisor.state / name, KEPT / name, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(supervisor.log, KEPT / "daemon.log")
    shutil.copy(workspace / "report.md", KEPT / "report.md")
    for path in KEPT.rglob("*"):
        if path.is_file() and SECRET.encode() in path.read_bytes():
            raise Failed(f"a private key is in {path}")
    say("where everything lies:")
    for name in ("results", "logs", "daemon.log", "report.md"):
        print(f"      {KEPT / name}")


_start = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _start:5.1f}s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
