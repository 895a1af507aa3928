"""The models that the tracker may ask, made of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox.spawner import Spawner
from supervisord_agents.config import LOCAL, Config, profiles
from supervisord_agents.core.breakers import Breaker
from supervisord_agents.errors import ErrorCode, InvalidInput, Unavailable
from supervisord_agents.gateway.refusal import Refusal
from supervisord_agents.gateway.server import Gateway
from supervisord_agents.gateway.upstream import Reply
from supervisord_agents.tracker.backend import Backend
from supervisord_agents.tracker.cell import Cell
from supervisord_agents.tracker.chain import Chain
from supervisord_agents.tracker.local import Local
from supervisord_agents.tracker.purse import Purse, PurseFile
from supervisord_agents.tracker.remote import Inquire, Remote, Unanswered
from supervisord_agents.tracker.talk import Load
from supervisord_agents.workers.shape import runtime_paths

SENT = {
    "deadline": ErrorCode.TIMEOUT,
    "read_timeout": ErrorCode.TIMEOUT,
    "bad_answer": ErrorCode.UNAVAILABLE,
    "reply_too_large": ErrorCode.UNAVAILABLE,
}
"""The gateway's codes of what went wrong when a request had been sent."""


class Tellers:
    """All back ends. `chain` is what to ask; None: there is no model. `now` is the supervisor's clock."""

    def __init__(self, config: Config, gateway: Gateway, spawner: Spawner, state_dir: Path, now: Callable[[], float]) -> None:
        file = PurseFile(state_dir / "tracker-spent.json")
        self.purse = Purse(config.tracker.cost_usd_per_day, now, file.read(), file.write)
        self._backends = list(_backends(config, gateway, spawner, self.purse))
        rule = Breaker(config.breakers.failures, config.breakers.open_s)
        self.chain = Chain(self._backends, rule, now) if self._backends else None

    def start(self) -> None:
        """Load what is to be loaded before somebody asks."""
        for backend in self._backends:
            if isinstance(backend, Local):
                backend.start()


def _backends(config: Config, gateway: Gateway, spawner: Spawner, purse: Purse) -> Iterator[Backend]:
    for name in config.tracker.backends:
        if name == LOCAL:
            yield _local(config, spawner)
        else:
            yield _remote(name, config, gateway, purse)


def _remote(name: str, config: Config, gateway: Gateway, purse: Purse) -> Remote:
    model = config.tracker.models[name]
    return Remote(
        name,
        model.provider,
        config.gateway.providers[model.provider].dialect,
        model.model,
        model.context_tokens,
        inquirer(gateway),
        purse=purse,
        most_usd=dearest(config, name),
    )


def dearest(config: Config, name: str) -> float:
    """What an answer of that model at a provider may cost, in dollars."""
    tracker = config.tracker
    provider = config.gateway.providers[tracker.models[name].provider]
    return (tracker.prompt_tokens * provider.input_usd_per_mtok + tracker.answer_tokens * provider.output_usd_per_mtok) / 1e6


def _local(config: Config, spawner: Spawner) -> Local:
    local = config.tracker.local
    cell = Cell(
        spawner=spawner,
        profile=profiles(config).resolve(local.profile).profile,
        optional_layers=config.sandbox.optional_layers,
        runtime_paths=runtime_paths(),
        model=local.model,
        uid=config.sandbox.uid_first + config.sandbox.uid_count - 1,  # the last that a worker would have
    )
    load = Load(model=local.model, context_tokens=local.context_tokens, threads=local.threads, gpu_layers=local.gpu_layers)
    return Local(LOCAL, load, cell.start, idle_s=local.idle_s)


def inquirer(gateway: Gateway) -> Inquire:
    """The way of the tracker's remote models to their providers."""

    async def inquire(provider: str, path: str, body: bytes, timeout_s: float) -> Reply:
        try:
            return await gateway.inquire(provider, path, body, timeout_s)
        except Refusal as refusal:
            if refusal.code in SENT:
                raise Unanswered(refusal.message, code=SENT[refusal.code]) from None
            raise (InvalidInput if refusal.permanent else Unavailable)(refusal.message) from None

    return inquire
