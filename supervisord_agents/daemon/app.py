"""`agent-supervisor`: builds the daemon from its parts, runs it, and takes it down in order."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import uvloop

from sandbox import probe_cache, tier
from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from supervisord_agents import __version__
from supervisord_agents import config as configuration
from supervisord_agents.config import Config
from supervisord_agents.core.events import Restarted
from supervisord_agents.daemon import fork_server, recovery
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.daemon.parts import Parts
from supervisord_agents.daemon.upkeep import in_words
from supervisord_agents.errors import ConfigError, DiskFull, SupervisorError, Unavailable
from supervisord_agents.journal.files import REAL_FILES, Files, make_directory
from supervisord_agents.journal.journal import Journal
from supervisord_agents.journal.recovery import Recovered
from supervisord_agents.observe import logging, notify
from supervisord_agents.wire.messages import Recovery
from supervisord_agents.workers.pool import Pools

ROOM_RETRY_S = 5.0
"""How often a daemon that cannot start on a full disk tries again."""
COLLECT_RARELY = (20_000, 5, 1_000_000)
"""Of gc.set_threshold. Tasks are out of the collector's sight (core.task), but with a million of them there are a million lists:
what is old is looked through by Upkeep, while that is quick, and never on its own."""
MAX_RECORD_BYTES = 64 * 1024 * 1024
log = structlog.get_logger()


def main(argv: Sequence[str] | None = None, *, files: Files = REAL_FILES) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit code is 0 after an orderly stop. The journal uses `files`."""
    arguments = _arguments(argv)
    try:
        config = _configured(arguments)
        logging.configure(config.daemon.log_level, config.daemon.log_format)
        if arguments.command == "spawner":
            fork_server.serve(_state_dir(config), parked=config.sandbox.parked)
        notify.adopt()
        return _run(config, files, external=arguments.external_spawner)
    except (SupervisorError, SandboxError) as error:
        logging.last_words(f"agent-supervisor: {error}")
        return 2 if isinstance(error, ConfigError) else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agent-supervisor", description="Run tasks of coding agents, durably and sandboxed.")
    parser.add_argument(
        "command", nargs="?", choices=["run", "spawner"], default="run", help="the daemon, or the fork server that outlives it"
    )
    parser.add_argument(
        "--config", type=Path, help="configuration file (default: $AGENT_SUPERVISOR_CONFIG, then the usual places)"
    )
    parser.add_argument("--socket", help="where to listen, instead of daemon.socket")
    parser.add_argument("--state-dir", help="where state lies, instead of daemon.state_dir")
    parser.add_argument(
        "--external-spawner",
        action="store_true",
        help="use the fork server that `agent-supervisor spawner` runs, and leave it the workers at a stop",
    )
    parser.add_argument("--version", action="version", version=f"agent-supervisor {__version__}")
    return parser.parse_args(argv)


def _configured(arguments: argparse.Namespace) -> Config:
    config = configuration.load(arguments.config or configuration.find_config())
    overrides = {"socket": arguments.socket, "state_dir": arguments.state_dir}
    return configuration.with_daemon(config, **{key: value for key, value in overrides.items() if value})


def _run(config: Config, files: Files, *, external: bool) -> int:
    gc.set_threshold(*COLLECT_RARELY)
    _allow_descriptors()
    state_dir = _state_dir(config)
    watch = recovery.Stopwatch()
    opened = _opened(config, state_dir, files)
    if opened is None:
        log.info("stopped", clean=True)
        return 0
    journal, recovered = opened
    # The probe and the spawner fork: both come before the first thread of this process.
    enforcement = _enforcement(state_dir)
    spawner = fork_server.obtained(
        state_dir, orphan_grace_s=config.daemon.orphan_grace_s, parked=config.sandbox.parked, external=external
    )
    _check_namespaces(config, spawner)
    feed = Feed(recovered.snapshot_sequence)
    replayed = recovery.replay(recovered, feed.changed, config.tasks.ageing_s)
    # The bytes of the snapshot and of all records take as much memory as the state that they led to.
    del opened, recovered

    async def serve() -> int:
        stop = _Stop(leaving=external)
        parts = Parts(config, state_dir, journal, replayed, feed, spawner, enforcement)
        return await _serve(parts, config, replayed, spawner, watch, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve())


def _allow_descriptors() -> None:
    """The soft limit is low for the sake of select(2), which is not used here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _state_dir(config: Config) -> Path:
    """The state directory, made if it is absent; one that was there keeps its mode. Raises SupervisorError."""
    path = configuration.state_dir(config)
    try:
        if make_directory(path, 0o750):
            path.chmod(0o750)
    except OSError as error:
        raise SupervisorError(
            f"the state directory cannot be made: {error.strerror}.",
            field=str(path),
            hint="Name another: --state-dir, or daemon.state_dir in the configuration.",
        ) from error
    return path


def _opened(config: Config, state_dir: Path, files: Files) -> tuple[Journal, Recovered] | None:
    """The journal and what it holds. On a full disk, wait for room to begin; None: told to stop meanwhile.

    Ending instead would use up the service manager's attempts, and leave the daemon down when there is room again.
    """
    stops = {signal.SIGTERM, signal.SIGINT}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        while True:
            try:
                return Journal.open(
                    state_dir / "journal",
                    segment_bytes=config.journal.segment_bytes,
                    reserve_bytes=config.journal.reserve_bytes,
                    max_record_bytes=MAX_RECORD_BYTES,
                    files=files,
                )
            except DiskFull as error:
                log.error("no_room_to_start", error=str(error), retry_s=ROOM_RETRY_S)
                notify.starting("waiting for room on the disk of the journal", 60 + ROOM_RETRY_S)
            # A signal that comes while the journal is being opened again waits until it is asked for.
            signal.pthread_sigmask(signal.SIG_BLOCK, stops)
            if signal.sigtimedwait(stops, ROOM_RETRY_S) is not None:
                return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _enforcement(state_dir: Path) -> dict[str, str]:
    """By layer: `on`, else what would help; what is no layer is there if it is missing. The log names what is not enforced."""
    # The service manager reports the kill of that trial, which would look like an accident.
    note = "one trial is killed for lack of memory: it is meant to be"
    layers = probe_cache.probed(state_dir / "probe.json", lambda: log.info("trying_the_sandbox", note=note))
    for layer in layers:
        if layer.needed and not layer.enforced:
            log.warning("not_enforced", layer=layer.name, why=layer.how, remedy=layer.remedy)
    told = [layer for layer in layers if not layer.condition or (layer.needed and not layer.enforced)]
    return {layer.name: "on" if layer.enforced else layer.remedy for layer in told}


def _check_namespaces(config: Config, spawner: Spawner) -> None:
    """Raise SandboxError if the sandboxes have none, and may not lack them."""
    if not spawner.without:
        return
    if "namespaces" not in config.sandbox.optional_layers:
        hint = 'Or put "namespaces" into sandbox.optional_layers, to have workers held by Landlock and the filter alone.'
        raise SandboxError(spawner.without, hint=hint)
    log.warning("without_namespaces", why=spawner.without, lacks=list(tier.LACKS))


async def _serve(
    parts: Parts, config: Config, replayed: recovery.Replayed, spawner: Spawner, watch: recovery.Stopwatch, stop: _Stop
) -> int:
    """Recover, serve until told to stop, and end in order; what has to last is given back after all jobs."""
    jobs = [parts.engine.run(), parts.upkeep.run(), parts.archivist.run(), parts.tracker.run(), _spawner_lives(spawner)]
    async with _background(jobs, stop) as failed, _workers_outlive_errors(parts.pools):
        await _start(parts, config, replayed, spawner, watch)
        await stop.wait()
        await _finish(parts, stop, in_order=not failed)
    await parts.archivist.aclose()
    if not stop.leaving:
        await spawner.aclose()
    parts.logs.close_all()
    await parts.committer.aclose()
    log.info("stopped", clean=not failed)
    return 1 if failed else 0


async def _start(parts: Parts, config: Config, replayed: recovery.Replayed, spawner: Spawner, watch: recovery.Stopwatch) -> None:
    await parts.gateway.start()
    parts.facts.recovery = await _recover(
        parts.engine, parts.attempts, parts.ends, replayed, spawner, parts.facts.state_dir, watch
    )
    await parts.keeper.recover(parts.pools.views_in_use)
    await parts.archivist.open()
    gc.freeze()
    parts.facts.stalls.start()
    parts.tellers.start()
    parts.attempts.start()
    parts.upkeep.start()
    parts.archivist.start()
    sockets = notify.listen_sockets()
    await parts.server.start(configuration.socket_path(config), sockets[0] if sockets else None)
    notify.ready(in_words(parts.engine.scheduler.counts))
    log.info("ready", socket=str(configuration.socket_path(config)), state_dir=str(parts.facts.state_dir), version=__version__)


async def _finish(parts: Parts, stop: _Stop, *, in_order: bool) -> None:
    notify.stopping()
    parts.facts.stopping = True
    parts.attempts.drain()
    await parts.server.aclose()
    await (parts.pools.leave() if stop.leaving else parts.pools.aclose())
    await parts.ends.recorded()
    await parts.keeper.aclose()
    await parts.tracker.aclose()
    await parts.gateway.aclose()
    await parts.upkeep.finish(in_order=in_order)
    parts.facts.stalls.stop()


class _Stop:
    """Set by a signal or a failure. `leaving`: the workers are left to a successor instead of ended.

    After a failure they are, as after a crash; and on SIGUSR1, for a restart where no service manager keeps the fork server.
    """

    def __init__(self, *, leaving: bool) -> None:
        self.leaving = leaving
        self._set = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._set.set)
        loop.add_signal_handler(signal.SIGUSR1, self.and_leave)

    def and_leave(self) -> None:
        self.leaving = True
        self._set.set()

    async def wait(self) -> None:
        await self._set.wait()


@asynccontextmanager
async def _background(jobs: list[Coroutine[Any, Any, None]], stop: _Stop) -> AsyncIterator[list[BaseException]]:
    """Run the jobs beside the body, which is told to stop when one of them fails; the list holds what it failed of."""
    failed: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            assert error is not None
            failed.append(error)
            log.critical("stopping_after_failure", error=str(error), exc_info=error)
            stop.and_leave()

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _workers_outlive_errors(pools: Pools) -> AsyncIterator[None]:
    """An error of the body ends the daemon, not what it has taken over: the next start goes on with that."""
    try:
        yield
    except BaseException:
        await pools.leave()
        raise


async def _spawner_lives(spawner: Spawner) -> None:
    await spawner.gone()
    if spawner.left:
        return
    raise Unavailable("the fork server has ended, and all workers with it.", kept="Their tasks run again after a restart.")


async def _recover(
    engine: Engine,
    attempts: Attempts,
    ends: Ends,
    replayed: recovery.Replayed,
    spawner: Spawner,
    state_dir: Path,
    watch: recovery.Stopwatch,
) -> Recovery:
    """Go on with what still runs, adopt what had finished unseen, and queue the rest of what is marked running again."""
    attempts.attach(engine)
    ends.attach(engine)
    ends.restore({*replayed.finished, *replayed.ended}, replayed.finished)
    replayed.finished.clear()
    kept = await attempts.adopt(spawner.adopt())
    adopted = recovery.adopt_outboxes(engine.scheduler, state_dir / "workers", attempts.attempt_ended, kept)
    await ends.recorded()
    requeued = sum(task.id not in kept for task in engine.scheduler.running_tasks())
    if requeued:
        engine.feed(Restarted(clean=replayed.clean, kept=tuple(kept)))
    engine.resume()
    await engine.settled()
    recovery.clear(state_dir / "workers", attempts.workers)
    report = Recovery(
        at=engine.clock.now(),
        clean=replayed.clean,
        records=replayed.records,
        tasks=len(engine.scheduler.tasks),
        requeued=requeued,
        resumed=len(kept),
        adopted=adopted,
        torn_bytes=replayed.torn_bytes,
        seconds=watch.seconds(),
    )
    log.info(
        "recovered",
        clean=report.clean,
        tasks=report.tasks,
        records=report.records,
        requeued=requeued,
        resumed=report.resumed,
        adopted=adopted,
        torn_bytes=report.torn_bytes,
        seconds=round(report.seconds, 3),
    )
    return report
