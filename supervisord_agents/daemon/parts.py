"""The parts of one daemon, made and wired; nothing of them runs yet."""

from __future__ import annotations

import asyncio
import resource
import secrets
from functools import partial
from pathlib import Path

from sandbox.spawner import Spawner
from supervisord_agents.config import Config
from supervisord_agents.core.placement import Placement
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon import recovery, standstill
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.admission import Admission
from supervisord_agents.daemon.advice import Advisor
from supervisord_agents.daemon.archivist import Archivist
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.daemon.digests import Digests
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.daemon.engine import Engine, Growth
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.daemon.handlers import Handlers
from supervisord_agents.daemon.pictures import Pictures
from supervisord_agents.daemon.providers import Providers
from supervisord_agents.daemon.rules import rules_of
from supervisord_agents.daemon.submissions import Submissions, limits_of
from supervisord_agents.daemon.tellers import Tellers
from supervisord_agents.daemon.tracking import Tracking, settings_of
from supervisord_agents.daemon.upkeep import Upkeep
from supervisord_agents.daemon.violations import Violations
from supervisord_agents.daemon.waiters import Waiters
from supervisord_agents.daemon.workspaces import Workspaces, secrets_of
from supervisord_agents.gateway.server import Gateway
from supervisord_agents.journal.committer import Committer
from supervisord_agents.journal.journal import Journal
from supervisord_agents.observe.stalls import StallWatch
from supervisord_agents.rpc.server import Server
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.meters import Meters
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.tracker.keeper import Keeper as Tracker
from supervisord_agents.wire.messages import Recovery
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.pool import Pools
from supervisord_agents.workspaces.keeper import Keeper

KEPT_DESCRIPTORS = 1_000
"""For workers and files: clients must not take the last one."""
NOTICES_S = 0.02
"""The supervisor's lines of a log wait so long at most: those of a short task are then one opening of its file."""


class Parts:
    """To be made in the running loop. `enforcement` tells what this host enforces, by layer."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        journal: Journal,
        replayed: recovery.Replayed,
        feed: Feed,
        spawner: Spawner,
        enforcement: dict[str, str],
    ) -> None:
        self._config, self._state_dir, self._journal, self._feed, self._spawner = config, state_dir, journal, feed, spawner
        self._epoch = secrets.token_hex(4)
        self._agents, self._waiters = AgentRegistry(config), Waiters()
        self._clock = Clock(replayed.last_at)
        self._results = ResultStore(state_dir / "results")
        self._forecast = Forecast(config.tasks, replayed.scheduler.durations)
        self.committer = Committer(journal)
        self.logs = LogStore(
            state_dir / "logs", config.tasks.log_limit_bytes, partial(asyncio.get_running_loop().call_later, NOTICES_S)
        )
        self._make_what_runs_tasks(replayed.scheduler)
        grown = Growth(replayed.records, replayed.bytes)
        self.engine = Engine(replayed.scheduler, self.committer, self._clock, self.attempts.released, grown)
        self._make_what_keeps(enforcement)
        self._pictures = Pictures(self.engine, self.pools)
        self._make_what_tells()
        self.server = self._server()

    def _make_what_runs_tasks(self, scheduler: Scheduler) -> None:
        config = self._config
        scheduler.placement = Placement(rules_of(config, self._agents))
        self.providers = Providers(scheduler.placement, self._clock, lambda: self.attempts.slots_changed())
        self.gateway = Gateway(
            config.gateway,
            lambda *used: self.attempts.used(*used),
            lambda *refused: self.attempts.refused(*refused),
            guard=self.providers,
        )
        self.keeper = Keeper(self._state_dir, config.workspaces, self._spawner)
        violations = Violations(lambda *told: self.attempts.violated(*told), lambda *tried: self.attempts.tried(*tried))
        self.pools = Pools(
            config,
            self._agents,
            self._spawner,
            self.gateway,
            self._state_dir / "workers",
            self._epoch,
            violations,
            self.keeper,
        )
        accounts = Accounts(Meters(self._state_dir / "meters"))
        self.ends = Ends(self._results, accounts)
        self.attempts = Attempts(
            config,
            self._agents,
            self.pools,
            self.ends,
            accounts,
            self.logs,
            self._feed,
            self._waiters,
            lambda: self._journal.accepting,
            self.providers,
        )

    def _make_what_keeps(self, enforcement: dict[str, str]) -> None:
        config, journal = self._config, self._journal
        self.facts = Facts(
            epoch=self._epoch,
            started_at=self.engine.clock.now(),
            state_dir=self._state_dir,
            recovery=nothing_recovered(),
            enforcement=enforcement,
            journal_bytes=lambda: journal.size_bytes,
            journal_accepting=lambda: journal.accepting,
            notes=[],
            stalls=StallWatch(config.daemon.stall_s),
        )
        self.archivist = Archivist(config, self.engine, self._results, self.logs, self._state_dir / "archive.db", self.keeper)
        self.upkeep = Upkeep(
            config,
            self.engine,
            self.committer,
            journal,
            self._results,
            self.facts,
            on_space=self.attempts.slots_changed,
            look=standstill.Watch(self.engine, self.pools, self.facts, self.attempts.slots_changed).look,
        )

    def _make_what_tells(self) -> None:
        config, now = self._config, self._clock.now
        digests = Digests(self.engine, self._pictures, self._forecast, self.attempts.signs)
        self._tracking = Tracking(self.engine, digests)
        self.tellers = Tellers(config, self.gateway, self._spawner, self._state_dir, now)
        self.tracker = Tracker(digests.of, now, self.tellers.chain, settings_of(config.tracker))
        self._tracking.keep(self.tracker, self.tellers)
        if self.tellers.chain is not None:
            self._feed.heard = self._tracking.changed

    def _handlers(self) -> Handlers:
        config = self._config
        admission = Admission(config, self._agents, Workspaces(secrets_of(config)), self._forecast)
        submissions = Submissions(
            self.engine, admission, self.attempts, self.archivist, self.facts, config.daemon.max_pending_tasks, limits_of(config)
        )
        self.attempts.take_children(submissions)
        return Handlers(
            self.engine,
            admission,
            self.attempts,
            self.ends,
            self.pools,
            self._results,
            self.logs,
            self._feed,
            self._waiters,
            self.archivist,
            self.facts,
            submissions=submissions,
            keeper=self.keeper,
            advisor=Advisor(config, self.engine, admission, self._forecast, self._agents, self.pools),
            pictures=self._pictures,
            tracking=self._tracking,
        )

    def _server(self) -> Server:
        daemon = self._config.daemon
        return Server(
            self._handlers(),
            epoch=self._epoch,
            max_frame_bytes=daemon.max_frame_bytes,
            max_clients=min(daemon.max_clients, _most_clients()),
            allowed_uids=daemon.allowed_uids,
            allowed_gids=daemon.allowed_gids,
        )


def _most_clients() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft - KEPT_DESCRIPTORS, soft // 2)


def nothing_recovered() -> Recovery:
    return Recovery(at=0.0, clean=True, records=0, tasks=0, requeued=0, adopted=0, torn_bytes=0, seconds=0.0)
