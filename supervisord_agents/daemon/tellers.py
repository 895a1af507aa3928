"""The models that the tracker may ask, made of the configuration."""

from __future__ import annotations

from collections.abc import Iterator

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
from supervisord_agents.tracker.remote import Inquire, Remote
from supervisord_agents.tracker.talk import Load
from supervisord_agents.workers.shape import runtime_paths


class Tellers:
    """All back ends. `chain` is what to ask; None: there is no model."""

    def __init__(self, config: Config, gateway: Gateway, spawner: Spawner) -> None:
        self._backends = list(_backends(config, gateway, spawner))
        rule = Breaker(config.breakers.failures, config.breakers.open_s)
        self.chain = Chain(self._backends, rule) if self._backends else None

    def start(self) -> None:
        """Load what is to be loaded before somebody asks."""
        for backend in self._backends:
            if isinstance(backend, Local):
                backend.start()


def _backends(config: Config, gateway: Gateway, spawner: Spawner) -> Iterator[Backend]:
    for name in config.tracker.backends:
        if name == LOCAL:
            yield _local(config, spawner)
        else:
            model = config.tracker.models[name]
            dialect = config.gateway.providers[model.provider].dialect
            yield Remote(name, model.provider, dialect, model.model, model.context_tokens, inquirer(gateway))


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
            if refusal.permanent:
                raise InvalidInput(refusal.message) from None
            raise Unavailable(refusal.message, code=ErrorCode.TIMEOUT if refusal.code == "deadline" else None) from None

    return inquire
