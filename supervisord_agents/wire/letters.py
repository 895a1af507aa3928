"""Dead letters in the client protocol: to list them, and to decide about them."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.model import Failure
from supervisord_agents.wire.messages import Reply, Request


class Letter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dead task that nobody has decided about."""

    task: str
    agent: str
    type: str = ""
    at: float
    """When it died, in Unix seconds."""
    attempts: int
    """Of all its rounds."""
    failure: Failure
    undoes: str = ""
    """The task that it should have undone."""
    dependents: int = 0
    """How many tasks named it as a dependency."""


class ListLetters(Request, tag="dlq", frozen=True):
    """A page of dead letters, the last that died first."""

    task: str = ""
    """Only this one."""
    limit: int = 100
    after: str = ""
    """The `next` of the page before."""


class LettersReply(Reply, frozen=True):
    letters: list[Letter]
    total: int
    """Of all that there are, on every page."""
    next: str = ""


class LetterNote(msgspec.Struct, frozen=True, kw_only=True):
    task: str
    why: str


class Requeue(Request, tag="requeue", frozen=True):
    """Give dead letters another round, each as `retry` does; those that cannot have one stay."""

    tasks: tuple[str, ...] = ()
    everything: bool = False
    """All that there are; `tasks` is then empty."""


class RequeueReply(Reply, frozen=True):
    tasks: list[str]
    """All that run again, the first 10,000 of very many."""
    count: int = 0
    """How many run again."""
    refused: tuple[LetterNote, ...] = ()


class Drop(Request, tag="drop", frozen=True):
    """Take dead letters off the list for good; the tasks stay dead, and may be archived."""

    tasks: tuple[str, ...] = ()
    everything: bool = False
    reason: str = ""


class DropReply(Reply, frozen=True):
    tasks: list[str]
    """Those that were dropped, the first 10,000 of very many."""
    count: int = 0
