"""The configuration: one struct a table of `config.toml`, units in the names, unknown keys refused with the nearest known one.

The defaults here are the product's; the shipped config.toml shows the same values and a test holds the two together.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sandbox.errors import SandboxError
from sandbox.profile import Profiles
from supervisord_agents.errors import ConfigError
from supervisord_agents.hosts import AllowedHosts

MIB = 1024 * 1024
MAX_UID = 2**31 - 1
Id = Annotated[int, Meta(ge=0, le=2**32 - 2)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Timeout = Annotated[float, Meta(gt=0, le=1e9)]
Price = Annotated[float, Meta(ge=0, le=1e6)]
Rate = Annotated[float, Meta(ge=0, le=1e6)]
Scaling = Literal["on-demand", "pre-warmed", "hybrid"]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables."""


class Daemon(Table, frozen=True):
    state_dir: str = ""
    socket: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "journal", "console", "json"] = "auto"
    allowed_uids: tuple[Id, ...] = ()
    allowed_gids: tuple[Id, ...] = ()
    max_frame_bytes: Annotated[int, Meta(ge=64 * 1024, le=1024 * MIB)] = 8 * MIB
    max_clients: Count = 12_000
    max_tasks_per_graph: Count = 10_000
    max_pending_tasks: Count = 1_000_000
    orphan_grace_s: Seconds = 300.0
    stall_s: Annotated[float, Meta(ge=0, le=3600)] = 0.05


class Journal(Table, frozen=True):
    segment_bytes: Annotated[int, Meta(ge=64 * 1024, le=16 * 1024 * MIB)] = 64 * MIB
    snapshot_every_records: Count = 200_000
    reserve_bytes: Annotated[int, Meta(ge=64 * 1024, le=16 * 1024 * MIB)] = 16 * MIB
    disk_warning_percent: Annotated[int, Meta(ge=1, le=100)] = 80


def _default_estimates() -> dict[str, float]:
    return {"code_review": 60.0, "test": 10.0}


class TasksBudget(Table, frozen=True):
    attempts: Annotated[int, Meta(ge=0, le=2**48)] = 0
    tokens: Annotated[int, Meta(ge=0, le=2**48)] = 0
    cost_usd: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    wall_s: Annotated[float, Meta(ge=0, le=315_360_000)] = 0.0


class Tasks(Table, frozen=True):
    timeout_s: Timeout = 600.0
    timeouts_s: dict[str, Timeout] = {}
    stall_s: Seconds = 600.0
    stalls_s: dict[str, Seconds] = {}
    estimates_s: dict[str, Timeout] = msgspec.field(default_factory=_default_estimates)
    adaptive_timeouts: bool = False
    timeout_floor_s: Timeout = 30.0
    backoff_s: Seconds = 1.0
    ageing_s: Seconds = 300.0
    affinity_s: Annotated[float, Meta(ge=0, le=60)] = 0.05
    max_depth: Annotated[int, Meta(ge=0, le=100)] = 5
    max_children: Annotated[int, Meta(ge=0, le=10_000)] = 100
    max_descendants: Annotated[int, Meta(ge=0, le=10_000)] = 1_000
    output_limit_bytes: Annotated[int, Meta(ge=1024, le=7 * MIB)] = 4 * MIB
    log_limit_bytes: Annotated[int, Meta(ge=0)] = 16 * MIB
    keep_ended: Annotated[int, Meta(ge=0)] = 100_000
    keep_ended_s: Seconds = 7 * 86400.0
    keep_dead: Annotated[int, Meta(ge=0)] = 10_000
    archive_s: Seconds = 0.0
    archive_bytes: Annotated[int, Meta(ge=0)] = 0
    budget: TasksBudget = TasksBudget()


class Advice(Table, frozen=True):
    overhead_s: Seconds = 0.5
    min_s: Seconds = 1.0
    split_s: Seconds = 60.0
    splits: dict[str, str] = {}


class TrackerLocal(Table, frozen=True):
    model: str = ""
    context_tokens: Annotated[int, Meta(ge=2_048, le=1_000_000)] = 8_192
    threads: Annotated[int, Meta(ge=0, le=1_024)] = 0
    gpu_layers: Annotated[int, Meta(ge=-1, le=10_000)] = 0
    profile: str = "strict"
    idle_s: Seconds = 0.0


class TrackerModel(Table, frozen=True):
    provider: str
    model: str
    context_tokens: Annotated[int, Meta(ge=2_048, le=10_000_000)] = 32_768


LOCAL = "local"
"""Of `tracker.backends`: what `tracker.local` describes."""


class Tracker(Table, frozen=True):
    backends: tuple[str, ...] = ()
    prompt_tokens: Annotated[int, Meta(ge=1_000, le=1_000_000)] = 4_096
    answer_tokens: Annotated[int, Meta(ge=100, le=10_000)] = 512
    deadline_s: Timeout = 30.0
    every_s: Seconds = 1.0
    stale_s: Timeout = 10.0
    eager: bool = False
    cost_usd_per_day: Annotated[float, Meta(gt=0, le=1e9)] = 1.0
    local: TrackerLocal = TrackerLocal()
    models: dict[str, TrackerModel] = {}


class Pool(Table, frozen=True):
    min_workers: Annotated[int, Meta(ge=0, le=10_000)] = 2
    max_workers: Annotated[int, Meta(ge=1, le=10_000)] = 10
    recycle_after_tasks: Count = 1_000
    recycle_after_s: Timeout = 4 * 3600.0
    recycle_memory_bytes: Annotated[int, Meta(ge=0)] = 256 * MIB
    idle_s: Seconds = 60.0
    scaling: Scaling = "hybrid"
    scale_up_waiting: Annotated[int, Meta(ge=0)] = 5
    scale_up_s: Timeout = 10.0
    scale_up_wait_s: Timeout = 5.0
    borrows_from: tuple[str, ...] = ()
    starts_per_s: Rate = 0.0


class Sandbox(Table, frozen=True):
    profile: str = "agent"
    task_profiles: tuple[str, ...] = ("strict",)
    placeholders: bool = False
    """Hold a profile's `protect_missing = "all"` in workspaces too; otherwise it is narrowed to "repository"."""
    uid_first: Annotated[int, Meta(ge=1000, le=MAX_UID)] = 1_900_000_000
    """Never that of a system user, and so never root's."""
    uid_count: Count = 65_536
    parked: Annotated[int, Meta(ge=0, le=100)] = 2
    optional_layers: tuple[Literal["cgroup", "landlock", "namespaces"], ...] = ("cgroup", "landlock")
    """Layers that may be missing on this host, whatever the profile; every other one is demanded."""


MOVED = (
    "sandbox.memory_bytes",
    "sandbox.pids",
    "sandbox.cpu_percent",
    "sandbox.tmp_bytes",
    "sandbox.open_files",
    "sandbox.file_size_bytes",
    "sandbox.read_only_paths",
)
"""Keys of earlier versions that are a profile's now, `read_only_paths` as its `paths`."""
MOVED_HINT = (
    'Write it into a table [profiles.mine] with `extends = "agent"`, and `profile = "mine"` into [sandbox]: docs/sandbox.md.'
)


class Workspaces(Table, frozen=True):
    mode: Literal["dir", "copy", "overlay", "git-worktree"] = "dir"
    copy_limit_bytes: Annotated[int, Meta(ge=0)] = 2048 * MIB
    limit_files: Count = 200_000
    overlay_fallback: Literal["", "copy"] = ""
    diff_limit_bytes: Annotated[int, Meta(ge=0, le=4 * MIB)] = MIB


class Breakers(Table, frozen=True):
    failures: Annotated[int, Meta(ge=0)] = 5
    open_s: Timeout = 60.0


class Provider(Table, frozen=True):
    base_url: Annotated[str, Meta(pattern="^https?://[^/]+")]
    dialect: Literal["openai", "anthropic", "gemini"] = "openai"
    api_key_env: str = ""
    api_key_file: str = ""
    input_usd_per_mtok: Price = 0.0
    output_usd_per_mtok: Price = 0.0
    starts_per_minute: Rate = 0.0


class Gateway(Table, frozen=True):
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8080
    connect_timeout_s: Timeout = 10.0
    read_timeout_s: Timeout = 600.0
    max_request_bytes: Count = 32 * MIB
    allowed_hosts: tuple[str, ...] = ()
    providers: dict[str, Provider] = {}


class Agent(Table, frozen=True):
    """Settings of one agent. `options` is the adapter's own table."""

    adapter: str = ""
    executable: str = ""
    provider: str = ""
    model: str = ""
    pool: str = ""
    max_running: Annotated[int, Meta(ge=0)] = 0
    starts_per_minute: Rate = 0.0
    breaker_failures: Annotated[int, Meta(ge=0)] | None = None
    """None: that of `breakers` for one that calls a model, else 0."""
    profile: str = ""
    workspace_mode: Literal["", "dir", "copy", "overlay", "git-worktree"] = ""
    read_only_paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    options: dict[str, Any] = {}


def _default_pools() -> dict[str, Pool]:
    return {
        "critical": Pool(min_workers=0, max_workers=3, scaling="on-demand", borrows_from=("standard", "background")),
        "standard": Pool(min_workers=2, max_workers=10, borrows_from=("background",)),
        "background": Pool(min_workers=0, max_workers=2, scaling="on-demand"),
    }


class Config(Table, frozen=True):
    daemon: Daemon = Daemon()
    journal: Journal = Journal()
    tasks: Tasks = Tasks()
    advice: Advice = Advice()
    tracker: Tracker = Tracker()
    pools: dict[str, Pool] = msgspec.field(default_factory=_default_pools)
    breakers: Breakers = Breakers()
    sandbox: Sandbox = Sandbox()
    profiles: dict[str, dict[str, Any]] = {}
    """Profiles of the sandbox beside the built-in ones; sandbox/profile.py has their keys."""
    workspaces: Workspaces = Workspaces()
    gateway: Gateway = Gateway()
    agents: dict[str, Agent] = {}


def load(path: Path | None) -> Config:
    """The configuration of a file, or the defaults for None; raises ConfigError naming file and key."""
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}.", field=str(path), hint="Check the path and its permissions.") from error
    return parse(text, str(path))


def parse(text: str, source: str = "config.toml") -> Config:
    """The configuration in a TOML text; raises ConfigError naming `source` and the key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}.", field=source) from error
    _refuse_unknown_keys(raw, Config, source, "")
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{error}.", field=source, hint="See config.toml of the distribution for every key.") from error
    _check_values(config, source)
    return config


def with_daemon(config: Config, **values: Any) -> Config:
    """The same configuration with other values in its `daemon` table."""
    return msgspec.structs.replace(config, daemon=msgspec.structs.replace(config.daemon, **values))


def _refuse_unknown_keys(raw: dict[str, Any], table: type[Table], source: str, prefix: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(table)}
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if path in MOVED:
            raise ConfigError(f"`{path}` is a key of profiles now.", field=source, hint=MOVED_HINT)
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known keys here: {', '.join(sorted(fields))}."
            raise ConfigError(f"unknown key `{path}`.", field=source, hint=hint)
        inner = _table_of(fields[key])
        if inner is None or not isinstance(value, dict):
            continue
        if fields[key] is inner:
            _refuse_unknown_keys(value, inner, source, f"{path}.")
            continue
        for name, row in value.items():
            if isinstance(row, dict):
                _refuse_unknown_keys(row, inner, source, f"{path}.{name}.")


def _table_of(annotation: Any) -> type[Table] | None:
    """The table type behind `T` or `dict[str, T]`."""
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((item for item in candidates if isinstance(item, type) and issubclass(item, Table)), None)


def _check_values(config: Config, source: str) -> None:
    """What the types of the fields cannot say."""
    for key, why in _contradictions(config):
        raise ConfigError(f"`{key}` {why}.", field=source)
    library = profiles(config, source)
    for key, name in (*_named_profiles(config), *((f"profiles.{name}", name) for name in config.profiles)):
        try:
            library.resolve(name)
        except SandboxError as error:
            where = "" if key.startswith("profiles.") else f"`{key}`: "
            raise ConfigError(f"{where}{error.message}", field=source, hint=error.hint) from error
    for key, entries in _host_lists(config):
        try:
            AllowedHosts(entries, key)
        except ConfigError as error:
            raise ConfigError(f"`{key}`: {error.message}", field=source, hint=error.hint) from None


def _named_profiles(config: Config) -> Iterator[tuple[str, str]]:
    yield "sandbox.profile", config.sandbox.profile
    yield "tracker.local.profile", config.tracker.local.profile
    yield from (("sandbox.task_profiles", name) for name in config.sandbox.task_profiles)
    yield from ((f"agents.{name}.profile", agent.profile) for name, agent in config.agents.items() if agent.profile)


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    if not config.pools:
        yield "pools", "must hold at least one pool"
    yield from _contradictions_of_pools(config)
    for name, agent in config.agents.items():
        if agent.pool and agent.pool not in config.pools:
            yield f"agents.{name}.pool", f"names a pool that is not configured: {agent.pool}"
        if agent.provider and agent.provider not in config.gateway.providers:
            yield f"agents.{name}.provider", f"names a provider that is not configured: {agent.provider}"
    yield from _contradictions_of_the_tracker(config)
    if config.sandbox.uid_first + config.sandbox.uid_count > MAX_UID:
        yield "sandbox.uid_count", f"leads beyond the uid {MAX_UID}"
    for key, path in _paths(config):
        if path and not os.path.isabs(path):
            yield key, f"must be absolute, not {path}"


def _contradictions_of_pools(config: Config) -> Iterator[tuple[str, str]]:
    for name, pool in config.pools.items():
        if pool.min_workers > pool.max_workers:
            yield f"pools.{name}", "has more min_workers than max_workers"
        for lender in pool.borrows_from:
            if lender == name or lender not in config.pools:
                yield f"pools.{name}.borrows_from", f"names no other pool that is configured: {lender}"


def _contradictions_of_the_tracker(config: Config) -> Iterator[tuple[str, str]]:
    tracker, providers = config.tracker, config.gateway.providers
    for name in tracker.backends:
        if name == LOCAL and not tracker.local.model:
            yield "tracker.local.model", 'must name a GGUF file, since tracker.backends has "local"'
        if name != LOCAL and name not in tracker.models:
            yield "tracker.backends", f"names no table of tracker.models: {name}"
    if len(set(tracker.backends)) < len(tracker.backends):
        yield "tracker.backends", "names one twice"
    for name, model in tracker.models.items():
        if name == LOCAL:
            yield f"tracker.models.{name}", "must have another name: this one is that of tracker.local"
        if model.provider not in providers:
            yield f"tracker.models.{name}.provider", f"names a provider that is not configured: {model.provider}"


def _host_lists(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "gateway.allowed_hosts", config.gateway.allowed_hosts
    for name, agent in config.agents.items():
        yield f"agents.{name}.hosts", (*config.gateway.allowed_hosts, *agent.hosts)


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    yield "daemon.state_dir", config.daemon.state_dir
    yield "daemon.socket", config.daemon.socket
    yield "tracker.local.model", config.tracker.local.model
    yield from ((key, name) for key, name in _named_profiles(config) if name.endswith(".toml"))
    for name, agent in config.agents.items():
        yield from ((f"agents.{name}.read_only_paths", path) for path in agent.read_only_paths)


def profiles(config: Config, source: str = "config.toml") -> Profiles:
    """The profiles that this configuration knows."""
    return Profiles(config.profiles, source)


def state_dir(config: Config) -> Path:
    """Where the journal, results and logs lie."""
    if config.daemon.state_dir:
        return Path(config.daemon.state_dir)
    if os.environ.get("STATE_DIRECTORY"):
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/agent-supervisor")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "agent-supervisor"


def socket_path(config: Config) -> Path:
    """Where the daemon listens: the user's runtime directory, or /run for the system service."""
    if config.daemon.socket:
        return Path(config.daemon.socket)
    if os.environ.get("RUNTIME_DIRECTORY"):
        return Path(os.environ["RUNTIME_DIRECTORY"].split(":")[0]) / "supervisor.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.geteuid() != 0:
        return Path(runtime) / "agent-supervisor" / "supervisor.sock"
    if os.geteuid() == 0:
        return Path("/run/agent-supervisor/supervisor.sock")
    return state_dir(config) / "supervisor.sock"


CONFIG_ENV = "AGENT_SUPERVISOR_CONFIG"
SOCKET_ENV = "AGENT_SUPERVISOR_SOCKET"


def find_config() -> Path | None:
    """The file named by $AGENT_SUPERVISOR_CONFIG, else the user's, else /etc's, else None."""
    named = os.environ.get(CONFIG_ENV)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    candidates = (Path(home) / "agent-supervisor" / "config.toml", Path("/etc/agent-supervisor/config.toml"))
    return next((path for path in candidates if path.is_file()), None)
