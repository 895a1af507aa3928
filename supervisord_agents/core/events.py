"""What goes into the scheduler (events, journalled) and what comes out (decisions, carried out after the journal has the event).

Events are facts. Each is one journal record, encoded by `encode_event` together with `now`, the supervisor's clock in seconds.
Fields are only ever added, with defaults, so that old journals stay readable. Nothing in an event depends on configuration that
may change later: defaults are filled in (`TaskSpec.timeout_s`, …) before the event is made, so replay needs no configuration.
"""

from __future__ import annotations

from typing import Any

import msgspec

from supervisord_agents.core.model import Budget, Failure, Past, State, TaskSpec, Usage


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="e"):
    """Something that happened."""


class Submitted(Event, frozen=True, tag="submitted"):
    """A client's graph was accepted. `specs` carry their short ids; `dependencies` are still as the client wrote them."""

    graph: str
    specs: tuple[TaskSpec, ...]
    key: str = ""
    """The client's idempotency key; a later submit with the same key is answered with this graph."""
    client: str = ""
    """The uid that asked, as text: its rights decide what a worker may be given."""
    past: tuple[Past, ...] = ()
    """Of the tasks that these depend on, those that are archived."""
    parent: str = ""
    """The full id of the running task that submitted these, its children; empty: a client did."""
    attempt: int = 0
    """Of the parent: only the one that is running may submit."""
    call: int = 0
    """The number of the request within that attempt."""
    budget: Budget = Budget()
    """Of all its tasks together; children draw on that of their parent."""


class Started(Event, frozen=True, tag="started"):
    """An attempt was given to a worker."""

    task: str
    attempt: int
    worker: str
    pool: str = ""
    """Whose worker it is, if another pool's than the task's."""
    agent: str = ""
    """Which of the task's agents has it, if not the first."""
    note: str = ""
    """Why it is there, where that is not the rule."""
    cold: bool = False
    """The worker had to come up for it, or had done no task yet."""


class Finished(Event, frozen=True, tag="finished"):
    """An attempt ended. `failure` None: it succeeded. `output` is the result's JSON, kept here while it is small."""

    task: str
    attempt: int
    failure: Failure | None = None
    usage: Usage = Usage()
    output: Any = None
    output_file: bool = False
    """True: the output was too large for the journal; the result file was synced before this event."""
    truncated: bool = False


class Yielded(Event, frozen=True, tag="yielded"):
    """An attempt ended to wait for the children that it has submitted; the next one is given `state`, plain values of JSON."""

    task: str
    attempt: int
    state: Any = None
    fail_fast: bool = False
    """The first failure of a child ends the others."""
    usage: Usage = Usage()


class Used(Event, frozen=True, tag="used"):
    """What an attempt consumed, known only after its end was decided: it was stopped, or a provider counted late."""

    task: str
    usage: Usage


class Checkpointed(Event, frozen=True, tag="checkpoint"):
    """An attempt begins a step, or, with `done`, has finished it with this result (core.checkpoints)."""

    task: str
    attempt: int
    step: str
    done: bool = False
    result: Any = None


class BudgetSpent(Event, frozen=True, tag="spent"):
    """The attempts under way have used up what was left of a budget, before any of them has ended."""

    graph: str
    """That which holds it."""
    usage: Usage
    """Of all attempts, those under way too."""


class CancelRequested(Event, frozen=True, tag="cancel"):
    """Cancel `task`; with `subtree` all that depend on it too. A graph id stands for all its tasks."""

    task: str
    subtree: bool = True
    reason: str = ""


class RetryRequested(Event, frozen=True, tag="retry"):
    """A person asks for another round of a task that ended without success (and of what failed because of it)."""

    task: str
    fresh: bool = False
    """Its finished steps are forgotten: all of it is done anew."""


class Dropped(Event, frozen=True, tag="dropped"):
    """A person has decided that nothing more is to be done about these dead tasks."""

    tasks: tuple[str, ...]
    reason: str = ""
    client: str = ""
    """The uid that asked, as text."""


class PauseRequested(Event, frozen=True, tag="pause"):
    """Start nothing more of a pool, of an agent, or of an agent in a pool; empty: any. `stop`: nor let run what runs."""

    pool: str = ""
    agent: str = ""
    stop: bool = False
    reason: str = ""
    client: str = ""
    """The uid that asked, as text."""


class ResumeRequested(Event, frozen=True, tag="resume"):
    """Let go of what a pause of exactly this pool and agent holds, or of all."""

    pool: str = ""
    agent: str = ""
    everything: bool = False


class BreakerReset(Event, frozen=True, tag="breaker_reset"):
    """A person says that an agent works again."""

    agent: str


class Ticked(Event, frozen=True, tag="tick"):
    """Time has come for what was due: backoffs, timeouts, deadlines."""


class Slept(Event, frozen=True, tag="slept"):
    """The machine was suspended for so long. Nobody could work, so it does not count towards timeouts; deadlines do not wait."""

    seconds: float


class Restarted(Event, frozen=True, tag="restarted"):
    """The daemon came back; attempts still marked running are lost (those that had finished were reported before this)."""

    clean: bool = False
    """The daemon before had ended in order: what it was running says nothing about the tasks."""
    kept: tuple[str, ...] = ()
    """Tasks whose attempts go on: their workers outlived that daemon."""


class Paced(Event, frozen=True, tag="paced"):
    """From here on one event looks at about `step` edges, and `Advanced` events carry out the rest; 0: each does all at once."""

    step: int


class Advanced(Event, frozen=True, tag="advanced"):
    """The loop has had its turn: another step of what earlier events have left to do (core.backlog)."""


class Archived(Event, frozen=True, tag="archived"):
    """These graphs are in the archive, durably, and leave memory (core.archive)."""

    graphs: tuple[str, ...]


AnyEvent = (
    Archived
    | Submitted
    | Started
    | Finished
    | Yielded
    | Used
    | BudgetSpent
    | Checkpointed
    | CancelRequested
    | RetryRequested
    | Dropped
    | PauseRequested
    | ResumeRequested
    | BreakerReset
    | Ticked
    | Slept
    | Restarted
    | Paced
    | Advanced
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[float, AnyEvent])


def encode_event(event: AnyEvent, now: float) -> bytes:
    """The journal record of an event (msgpack array of `now` and the tagged event)."""
    return _encoder.encode((now, event))


def decode_event(record: bytes) -> tuple[float, AnyEvent]:
    """The time and event of a journal record; raises what msgspec does, or UnicodeDecodeError, for bytes that are no event."""
    return _decoder.decode(record)


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something for the shell to do, or to tell. The event stream keeps very many of them."""


class Start(Decision, frozen=True):
    """Offer of `Scheduler.starts`: this task may run now. The shell journals `Started` before it launches anything.

    `agent` and `note` are as in `Started`, which names a pool only where it is not the task's own.
    """

    task: str
    attempt: int
    pool: str
    agent: str = ""
    note: str = ""
    worker: str = ""
    """The one that it should rather have (core.affinity); empty: any."""


class Stop(Decision, frozen=True):
    """End the running attempt: `code` is CANCELLED, TIMEOUT, DEADLINE or BUDGET_EXCEEDED. Its end is already decided; no Finished
    is owed."""

    task: str
    attempt: int
    code: str


class Compensating(Decision, frozen=True):
    """What had succeeded of a failed graph is undone by another, whose tasks are told of next."""

    graph: str
    by: str


class Changed(Decision, frozen=True):
    """A task went from `before` to `after`; `before` is None for a new task. In END_STATES: it ended."""

    task: str
    before: State | None
    after: State
    at: float
    attempt: int = 0
    failure: Failure | None = None
