"""What writes the words of a story: a model, or several of which the first that answers does."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from supervisord_agents.core.model import Usage


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """In the order in which it changes: what comes first is the same from one prompt to the next for as long as possible."""

    system: str
    """What the model is to do; always the same."""
    data: str
    """The digest. What workers and clients wrote is in it as JSON strings."""
    question: str
    """What is wanted now."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one answer."""

    tokens: int = 512
    seconds: float = 30.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a back end answered: a text that should be JSON of the schema, and is not believed to be."""

    text: str
    by: str = ""
    """The back end, and its model if it has one."""
    usage: Usage = Usage()
    seconds: float = 0.0


class Backend(Protocol):
    """Raises SupervisorError if there is no answer; it may be cancelled at any time."""

    @property
    def name(self) -> str:
        """As in the configuration."""

    @property
    def context_tokens(self) -> int:
        """What a prompt and its answer may take together."""

    def count(self, text: str) -> int:
        """The tokens of a text, or a number that is not smaller; at once."""

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        """An answer by that JSON schema, within the limits."""

    def judged(self, wrong: str) -> None:
        """Whether the answers to a question were true in the end: empty, or what was wrong with the last."""

    async def aclose(self) -> None:
        """Give back what it holds."""
