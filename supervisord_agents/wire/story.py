"""`story` and `ask`: how things are, in words, with the ids of the tasks that they rest on."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.eta import Eta
from supervisord_agents.core.model import State
from supervisord_agents.wire.messages import Reply, Request


class TellStory(Request, tag="story", frozen=True):
    """The story of a graph (a task stands for its graph), or of all that is open."""

    graph: str = ""
    wait_s: float = 0.0
    """How long to wait for a model's words, if one has still to find them."""


class StoryTask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of one of the tasks that matter most."""

    id: str
    status: State
    waits_for: list[str] = []
    """Full ids; the first five."""


class StoryReply(Reply, frozen=True):
    graph: str
    """Empty: all that is open."""
    at: float
    """Unix seconds: of all but `summary`."""
    summary: str
    by: str
    """Whose words the summary is: `rules`, or a model's."""
    told_at: float
    """Unix seconds: when the summary was true."""
    behind: int = 0
    """Changes of states since."""
    counts: dict[str, int] = {}
    """Tasks by state; of all that is open, those of the open graphs."""
    open: int = 0
    """How many have not ended."""
    blocked_on: list[str] = []
    """Full ids of what holds up blocked tasks and waits for nothing itself, with the most work behind it first; ten at most."""
    next_actionable: list[str] = []
    """Full ids of what is ready and held by no pause, breaker or provider, the next to be started first; ten at most."""
    tasks: list[StoryTask] = []
    eta: Eta | None = None
    """None: all has ended, or will never as things are."""


class Ask(Request, tag="ask", frozen=True):
    """A question about a graph (a task stands for its graph), or about all that is open."""

    question: str
    graph: str = ""


class AskReply(Reply, frozen=True):
    answer: str
    by: str
    """As in `story`."""
    citations: list[str] = []
    """Full ids of the tasks that the answer rests on; all of them exist."""
    understood: bool = True
    """False: nobody knew what was asked, and the answer is how things are."""
