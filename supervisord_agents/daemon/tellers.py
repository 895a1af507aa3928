"""The models that the tracker may ask, made of the configuration."""

from __future__ import annotations

from supervisord_agents.errors import ErrorCode, InvalidInput, Unavailable
from supervisord_agents.gateway.refusal import Refusal
from supervisord_agents.gateway.server import Gateway
from supervisord_agents.gateway.upstream import Reply
from supervisord_agents.tracker.remote import Inquire


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
