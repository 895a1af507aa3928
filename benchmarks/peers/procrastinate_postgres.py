"""procrastinate with a PostgreSQL server of one's own on a Unix socket, two worker processes of concurrency 1.

Durable: fsync=on with synchronous_commit=on; off may lose the last commits, but never the database ("Asynchronous Commit",
postgresql.org). A job that ran when its worker died is not taken up again by itself: procrastinate's documentation ("Retry
stalled jobs") has a periodic task for it, which the harness stands in for after the crash.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

from procrastinate import App, PsycopgConnector

from benchmarks.peers import clients as many
from benchmarks.peers.children import Child, descendants, wait_until
from benchmarks.peers.peer import Absent, Unable, mark

USER = "postgres"
CLIENTS = 64
POLL_S = 0.01
BATCH = 1_000
STALLED_S = 2.0

HOME = Path(os.environ["BENCH_DIRECTORY"])
SOCKETS = HOME / "sockets"
CONNECTION = f"host={SOCKETS} user={USER} dbname=postgres"

app = App(connector=PsycopgConnector(conninfo=CONNECTION, min_size=1, max_size=CLIENTS))


@app.task
def noop() -> None:
    pass


@app.task
def true() -> None:
    subprocess.run(["/bin/true"], check=True)


@app.task
def marked(number: int, path: str) -> None:
    mark(number, path)


async def opened() -> None:
    await app.open_async()


def programs() -> Path:
    """The newest installation, Debian's beside PATH. Raises Absent."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        raise Absent("PostgreSQL is not installed")
    return found[-1].parent if found else Path(str(on_path)).parent


class Procrastinate(Unable):
    def versions(self) -> dict[str, str]:
        said = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        return {"procrastinate": version("procrastinate"), "psycopg": version("psycopg"), "postgresql": said.split()[2]}

    def start(self, workers: int) -> None:
        self._count = workers
        self._workers: list[Child] = []
        self._server: Child | None = None
        self._runner = asyncio.Runner()
        for directory in (SOCKETS, HOME / "data"):
            directory.mkdir(mode=0o700)
            if os.geteuid() == 0:
                shutil.chown(directory, USER, pwd.getpwnam(USER).pw_gid)
        made = Child(
            [str(programs() / "initdb"), "-D", str(HOME / "data"), "-U", USER, "--auth=trust", "--no-sync"],
            HOME / "initdb.log",
            user=USER,
        )
        wait_until(lambda: not made.running, "initdb")
        self._start_server()
        self._run(opened())
        self._run(app.schema_manager.apply_schema_async())
        self._start_workers()
        if workers:
            self.noops(workers)

    def _start_server(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(SOCKETS),
            "synchronous_commit": self.setting,
            "max_connections": str(CLIENTS + 40),
        }
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._server = Child(
            [str(programs() / "postgres"), "-D", str(HOME / "data"), *arguments], HOME / "postgres.log", user=USER
        )
        ready = [str(programs() / "pg_isready"), "-q", "-h", str(SOCKETS)]
        self._server.wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL")

    def _start_workers(self) -> None:
        argv = [sys.executable, "-m", "procrastinate", f"--app={__name__}.app", "worker", "--concurrency", "1"]
        self._workers = [Child(argv, HOME / "worker.log") for _ in range(self._count)]

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop(signal.SIGTERM, grace_s=2.0)
        try:
            self._run(app.close_async())
        finally:
            self._runner.close()
            if self._server is not None:
                self._server.stop(signal.SIGINT)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        return self._run(many.by_tasks([noop.defer_async] * clients, each, limit_s))

    def noops(self, count: int) -> None:
        self._bag(noop, count)

    def processes(self, count: int) -> None:
        self._bag(true, count)

    def _bag(self, task: Any, count: int) -> None:
        self._many(task, count)
        self._run(self._ended())

    async def _ended(self) -> None:
        unfinished = "SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS it"
        while (await app.connector.execute_query_one_async(unfinished))["it"]:  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(POLL_S)

    def _many(self, task: Any, count: int) -> None:
        for first in range(0, count, BATCH):
            self._run(task.batch_defer_async(*[{}] * min(BATCH, count - first)))

    def fill(self, count: int) -> None:
        self._many(noop, count)

    def holders(self) -> list[int]:
        assert self._server is not None
        return [self._server.pid, *descendants(self._server.pid)]

    def submit_marked(self, number: int, path: Path) -> None:
        self._run(marked.defer_async(number=number, path=str(path)))

    def crash(self) -> None:
        assert self._server is not None
        self._server.kill()

    def recover(self) -> None:
        (HOME / "data" / "postmaster.pid").unlink(missing_ok=True)
        self._start_server()
        for worker in self._workers:
            worker.stop(grace_s=0.5)
        self._start_workers()
        self._run(self._retry_stalled())

    async def _retry_stalled(self) -> None:
        """What the documented periodic task does."""
        await asyncio.sleep(STALLED_S)
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            await app.job_manager.retry_job(job)


PEER = Procrastinate
