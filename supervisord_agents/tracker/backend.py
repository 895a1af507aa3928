"""What writes the words of a story: a model, or several of which the first that answers does."""

from __future__ import annotations

from enum import StrEnum
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


class Stands(StrEnum):
    """Whether a back end can answer now."""

    READY = "ready"
    LOADING = "loading"
    UNLOADED = "unloaded"
    """It is loaded when somebody asks."""
    LEFT_ALONE = "left_alone"
    """It failed again and again: core.breakers."""
    OVER_LIMIT = "over_limit"
    """It costs money, of which enough was spent: tracker.purse."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a back end is. Times are in seconds since the epoch; 0.0: not known, or not said."""

    stands: Stands = Stands.READY
    since: float = 0.0
    until: float = 0.0
    why: str = ""
    about: str = ""
    """The model, if it has been loaded."""

    @property
    def askable(self) -> bool:
        return self.stands not in (Stands.LEFT_ALONE, Stands.OVER_LIMIT)


class Backend(Protocol):
    """Raises SupervisorError if there is no answer; it may be cancelled at any time."""

    @property
    def name(self) -> str:
        """As in the configuration."""

    @property
    def context_tokens(self) -> int:
        """What a prompt and its answer may take together."""

    def standing(self) -> Standing:
        """Whether it can be asked now."""

    def count(self, text: str) -> int:
        """The tokens of a text, or a number that is not smaller; at once."""

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        """An answer by that JSON schema, within the limits."""

    def judged(self, wrong: str) -> None:
        """Whether the answers to a question were true in the end: empty, or what was wrong with the last."""

    async def aclose(self) -> None:
        """Give back what it holds."""
