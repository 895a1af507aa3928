"""What there is to compare: the peers with their settings, and the works with their sizes. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

OURS = "ours"


@dataclass(frozen=True)
class Setting:
    """`durable`: what is acknowledged is on disk, as the peer's documentation defines it; `says` goes into the table."""

    name: str
    durable: bool
    says: str


@dataclass(frozen=True)
class PeerEntry:
    """`module` is the file in this directory, and the name of the virtual environment."""

    module: str
    title: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Work:
    """`unit`: what the table shows. A work whose rate would take longer than `limit_s` is done with fewer tasks."""

    name: str
    title: str
    unit: str
    count: int
    quick: int
    workers: int
    limit_s: float
    once: bool = False
    """Not in every round."""


_AOF = (
    Setting("always", True, "appendfsync always"),
    Setting("everysec", False, "appendfsync everysec"),
)

PEERS = (
    PeerEntry(
        OURS,
        "agent-supervisor",
        (Setting("only", True, "always durable, every task sandboxed, functions of a graph share a process"),),
    ),
    PeerEntry(
        "sqlite_journal",
        "SQLite as the journal",
        (Setting("full", True, "WAL, synchronous=FULL"), Setting("normal", False, "WAL, synchronous=NORMAL")),
    ),
    PeerEntry("redis_streams", "Redis Streams", (*_AOF, Setting("no", False, "appendfsync no"))),
    PeerEntry(
        "huey_sqlite",
        "Huey, SQLite",
        (Setting("fsync", True, "fsync=True"), Setting("nosync", False, "fsync=False")),
    ),
    PeerEntry(
        "celery_redis",
        "Celery, Redis",
        (
            Setting("always", True, "appendfsync always, acks_late"),
            Setting("everysec", False, "appendfsync everysec, early acks"),
        ),
    ),
    PeerEntry("dramatiq_redis", "Dramatiq, Redis", _AOF),
    PeerEntry("taskiq_redis", "taskiq, Redis Streams", _AOF),
    PeerEntry(
        "procrastinate_postgres",
        "procrastinate, PostgreSQL",
        (Setting("on", True, "synchronous_commit=on"), Setting("off", False, "synchronous_commit=off")),
    ),
    PeerEntry("dask_distributed", "Dask distributed", (Setting("memory", False, "in memory; there is no durable setting"),)),
    PeerEntry("ray_tasks", "Ray", (Setting("memory", False, "in memory; there is no durable setting for tasks"),)),
    PeerEntry(
        "hyperqueue",
        "HyperQueue",
        (
            Setting("journal", False, "--journal (flushed, never synced at a submit)"),
            Setting("memory", False, "without a journal"),
        ),
    ),
    PeerEntry(
        "task_spooler",
        "task-spooler",
        (Setting("memory", False, "in memory; there is no durable setting"),),
    ),
    PeerEntry(
        "gnu_parallel",
        "GNU parallel",
        (Setting("joblog", False, "--joblog, written and not synced"), Setting("plain", False, "no log")),
    ),
)

WORKS = (
    Work("submit_one", "submit, one at a time", "ms", 300, 20, 0, 3.0),
    Work("submit_64", "submit, 64 clients at once", "submits/s", 200, 5, 0, 2.0),
    Work("memory", "memory, a queued task", "bytes", 100_000, 2_000, 0, 8.0, once=True),
    Work("noops", "no-op tasks, 2 warm workers", "tasks/s", 10_000, 20, 2, 4.0),
    Work("processes", "processes, /bin/true", "tasks/s", 1_000, 4, 2, 2.5),
    Work("chain", "chain, 1,000 tasks", "tasks/s", 1_000, 6, 2, 2.5),
    Work("fan", "fan-out, 1 → 1,000 → 1", "tasks/s", 1_000, 6, 2, 2.5),
    Work("layers", "layered graph, 10,000 tasks", "tasks/s", 10_000, 100, 2, 4.0),
    Work("crash", "crash, kill -9 of the broker", "lost/twice", 300, 20, 2, 30.0, once=True),
)


def peer(module: str) -> PeerEntry:
    return next(entry for entry in PEERS if entry.module == module)


def work(name: str) -> Work:
    return next(entry for entry in WORKS if entry.name == name)
