"""All methods of the client protocol: each request, and what answers it."""

from __future__ import annotations

from typing import Any

from supervisord_agents.wire.advice import Estimate, EstimateReply
from supervisord_agents.wire.breakers import Breakers, BreakersReply, ResetBreaker, ResetBreakerReply
from supervisord_agents.wire.changes import Apply, ApplyReply, Changes, ChangesReply, Discard, DiscardReply
from supervisord_agents.wire.graph import GraphReply, ShowGraph
from supervisord_agents.wire.letters import Drop, DropReply, LettersReply, ListLetters, Requeue, RequeueReply
from supervisord_agents.wire.messages import (
    Cancel,
    CancelReply,
    GetLogs,
    GetResult,
    Hello,
    HelloReply,
    Item,
    ListReply,
    ListTasks,
    LogsReply,
    Pause,
    PauseReply,
    Request,
    ResultReply,
    Retry,
    RetryReply,
    Show,
    ShowReply,
    Status,
    StatusReply,
    Submit,
    SubmitReply,
    Subscribe,
    Unpause,
    UnpauseReply,
    Wait,
    WaitReply,
    Why,
    WhyReply,
)
from supervisord_agents.wire.story import Ask, AskReply, StoryReply, TellStory

AnyRequest = (
    Hello
    | Submit
    | ListTasks
    | Show
    | Wait
    | GetResult
    | Cancel
    | Retry
    | Pause
    | Unpause
    | Why
    | ListLetters
    | Requeue
    | Drop
    | Estimate
    | ShowGraph
    | TellStory
    | Ask
    | GetLogs
    | Changes
    | Apply
    | Discard
    | Breakers
    | ResetBreaker
    | Status
    | Subscribe
)

METHODS: dict[type[Request], type[Any]] = {
    Hello: HelloReply,
    Submit: SubmitReply,
    ListTasks: ListReply,
    Show: ShowReply,
    Wait: WaitReply,
    GetResult: ResultReply,
    Cancel: CancelReply,
    Retry: RetryReply,
    Pause: PauseReply,
    Unpause: UnpauseReply,
    Why: WhyReply,
    ListLetters: LettersReply,
    Requeue: RequeueReply,
    Drop: DropReply,
    Estimate: EstimateReply,
    ShowGraph: GraphReply,
    TellStory: StoryReply,
    Ask: AskReply,
    GetLogs: LogsReply,
    Changes: ChangesReply,
    Apply: ApplyReply,
    Discard: DiscardReply,
    Breakers: BreakersReply,
    ResetBreaker: ResetBreakerReply,
    Status: StatusReply,
    Subscribe: Item,
}
"""Each request's reply; for `Subscribe` the type of an item."""
