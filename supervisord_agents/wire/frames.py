"""The worker protocol: frames on the socketpair that a sandbox inherits as descriptor 3.

The worker says `hello` first. The daemon sends one `task` at a time; the worker answers with any number of `progress`, `log`,
`usage`, `checkpoint` and `submit`, of which the last two are answered by `checkpointed` and `submitted`, and exactly one
`result`, `error` or `yield`. `heartbeat` goes
out every 5 s, also between tasks. Every frame that belongs to an attempt names it; a frame for another attempt is ignored, and a
worker that sends many is ended.

A worker outlives its daemon. The next one hands it a new channel by descriptor 5; there the worker says `hello` with the attempt
that it has, and the daemon answers with `resume`, or with a `task` if the one that it was sent got lost.
"""

from __future__ import annotations

from typing import Any

import msgspec

from supervisord_agents.core.model import Failure, TaskSpec, Usage

WORKER_PROTOCOL_VERSION = 4
CHANNEL_FD = 3
OUTBOX_FD = 4
"""A file of the daemon's. Before `result` or `error` is sent, the same frame is written into it (workers/outbox.py), so that work
done is known even if the daemon has just died. Only the worker's runtime has it: nothing that a task runs does."""
HANDOVER_FD = 5
"""A socket of packets: each brings the worker's end of a new channel beside it, for which the one on descriptor 3 is given up."""
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""In both directions, whatever `daemon.max_frame_bytes` is for clients."""
HEARTBEAT_S = 5.0
STOP_GRACE_S = 2.0
"""Between the SIGTERM and the SIGKILL that a worker answers `cancel` with."""
WORKSPACE_DIR = "/workspace"
"""Inside the sandbox a private workspace lies here; a workspace of the host keeps its own path."""


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of all worker frames."""


class WorkerHello(Frame, tag="hello", frozen=True):
    version: int
    pid: int = 0
    task: str = ""
    """The attempt that it was given last, running or ended; empty: none yet."""
    attempt: int = 0


class DependencyResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of a dependency, for its dependent; outputs over the frame limit are cut and say so."""

    state: str
    output: Any = None
    failure: Failure | None = None
    truncated: bool = False


class PastStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step that an earlier attempt has begun; one that is not `done` may have happened."""

    attempt: int
    done: bool = False
    result: Any = None


class RunTask(Frame, tag="task", frozen=True):
    """Do this. `agent_class` is `module:Class` of the adapter, `settings` its table from the configuration."""

    task: str
    attempt: int
    spec: TaskSpec
    agent_class: str
    settings: dict[str, Any] = {}
    workspace: str = WORKSPACE_DIR
    dependencies: dict[str, DependencyResult] = {}
    """By the name the task's spec uses for them."""
    children: dict[str, DependencyResult] = {}
    """By short id: the ends of the children that an earlier attempt has waited for."""
    state: Any = None
    """What that wait was given."""
    steps: dict[str, PastStep] = {}
    """By name, in the order in which they were first begun."""
    gateway_port: int = 0
    """Model endpoints: `http://127.0.0.1:<port>/<provider>/…`; 0: none."""
    output_limit_bytes: int = 4 * 1024 * 1024
    undoes: str = ""
    """The task that this one undoes: its graph failed. `dependencies` has its output, and nothing else."""


class CancelTask(Frame, tag="cancel", frozen=True):
    """Stop it; the sandbox is killed if this does not help."""

    task: str
    attempt: int


class Resume(Frame, tag="resume", frozen=True):
    """The daemon is a new one, and has this much of the attempt's output: say the rest, and how it ended if it has."""

    task: str
    attempt: int
    log_bytes: int = 0


class Checkpointed(Frame, tag="checkpointed", frozen=True):
    """A `checkpoint` is durable, or, with a failure, refused."""

    task: str
    attempt: int
    step: str
    done: bool = False
    failure: Failure | None = None

    @property
    def question(self) -> tuple[str, int]:
        return self.step, self.done


class ChildrenSubmitted(Frame, tag="submitted", frozen=True):
    """The children are durable, as this graph, or, with a failure, refused."""

    task: str
    attempt: int
    call: int
    graph: str = ""
    failure: Failure | None = None

    @property
    def question(self) -> tuple[str, int]:
        return "", self.call


class Progress(Frame, tag="progress", frozen=True):
    task: str
    attempt: int
    fraction: float = -1.0
    """0 to 1; -1: unknown."""
    message: str = ""


class Log(Frame, tag="log", frozen=True):
    task: str
    attempt: int
    stream: str
    """`stdout`, `stderr` or `worker`."""
    data: bytes
    offset: int = 0
    """How many bytes of the attempt's output, of all streams, came before."""


class Heartbeat(Frame, tag="heartbeat", frozen=True):
    """Still there."""


class UsageReport(Frame, tag="usage", frozen=True):
    task: str
    attempt: int
    usage: Usage
    """All that the attempt has used so far."""


class Checkpoint(Frame, tag="checkpoint", frozen=True):
    """A step begins; `done`: it is finished, with this result."""

    task: str
    attempt: int
    step: str
    done: bool = False
    result: Any = None

    @property
    def question(self) -> tuple[str, int]:
        """Which one it is, among those of the attempt: its answer has the same."""
        return self.step, self.done


class SubmitChildren(Frame, tag="submit", frozen=True):
    """Run these as children of the task."""

    task: str
    attempt: int
    call: int
    """Counts the requests of the attempt: one that is made again has the same answer."""
    tasks: list[Any]
    """As in the client's `submit`: each is a TaskSpec, with an id that is new to the attempt."""

    @property
    def question(self) -> tuple[str, int]:
        """No step has an empty name."""
        return "", self.call


class TaskResult(Frame, tag="result", frozen=True):
    task: str
    attempt: int
    output: Any = None
    usage: Usage = Usage()
    truncated: bool = False
    last: bool = False
    """The worker cannot clear up behind the attempt: it takes no other task."""


class TaskError(Frame, tag="error", frozen=True):
    task: str
    attempt: int
    failure: Failure
    output: Any = None
    """What was there of it."""
    usage: Usage = Usage()
    truncated: bool = False
    last: bool = False


class Yield(Frame, tag="yield", frozen=True):
    """The attempt ends to wait for the children that it has submitted; the next one is given `state` and their ends."""

    task: str
    attempt: int
    state: Any = None
    fail_fast: bool = False
    """The first failure of a child ends the others."""
    usage: Usage = Usage()
    last: bool = False


ToWorker = RunTask | CancelTask | Resume | Checkpointed | ChildrenSubmitted
FromWorker = WorkerHello | Progress | Log | Heartbeat | UsageReport | Checkpoint | SubmitChildren | TaskResult | TaskError | Yield
End = TaskResult | TaskError | Yield
"""The last frame of an attempt."""
Question = Checkpoint | SubmitChildren
Answer = Checkpointed | ChildrenSubmitted

encoder = msgspec.msgpack.Encoder()
to_worker_decoder = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder = msgspec.msgpack.Decoder(FromWorker)
end_decoder = msgspec.msgpack.Decoder(End)
