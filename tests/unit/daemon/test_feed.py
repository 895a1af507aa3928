"""The event stream: order, resuming, and readers that are too slow."""

from __future__ import annotations

import pytest

from supervisord_agents.core.events import Changed
from supervisord_agents.core.model import State
from supervisord_agents.daemon import feed as feed_module
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.messages import Item


def change(task: str, after: State = State.READY) -> Changed:
    return Changed(task=task, before=None, after=after, at=1.0)


async def take(feed: Feed, count: int, after: str = "", only: str = "", logs: bool = False) -> list[Item]:
    items = []
    stream = feed.subscribe(after, only, logs)
    async for item in stream:
        items.append(item)
        if len(items) == count:
            break
    await stream.aclose()
    return items


async def test_a_late_reader_resumes_after_its_token_without_a_gap() -> None:
    feed = Feed(10)
    for sequence, task in ((11, "a"), (11, "b"), (12, "c")):
        feed.changed(sequence, change(task))
    everything = await take(feed, 3, after="11.0")
    assert [item.task for item in everything] == ["a", "b", "c"]
    rest = await take(feed, 2, after=everything[0].token)
    assert [item.task for item in rest] == ["b", "c"]


async def test_a_token_older_than_the_ring_is_answered_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RING_ITEMS", 2)
    feed = Feed(0)
    for sequence in range(1, 5):
        feed.changed(sequence, change(f"t{sequence}"))
    assert [item.kind for item in await take(feed, 3, after="1.1")] == ["gap", "state", "state"]
    assert [item.task for item in await take(feed, 2, after="2.1")] == ["t3", "t4"]


@pytest.mark.parametrize("token", ["0.0", "9.2", "10.0", "10.1"])
async def test_a_token_of_what_only_the_snapshot_tells_of_is_answered_with_a_gap(token: str) -> None:
    feed = Feed(10)
    feed.changed(11, change("a"))
    items = await take(feed, 2, after=token)
    assert [(item.kind, item.task) for item in items] == [("gap", ""), ("state", "a")]


async def test_without_a_snapshot_the_stream_can_be_read_from_its_beginning() -> None:
    feed = Feed(0)
    feed.changed(1, change("a"))
    assert [item.task for item in await take(feed, 1, after="0.0")] == ["a"]


async def test_the_token_of_a_stream_that_has_no_item_yet_can_be_resumed_after() -> None:
    feed = Feed(10)
    token = feed.token
    feed.changed(11, change("a"))
    assert [item.task for item in await take(feed, 1, after=token)] == ["a"]


async def test_a_token_from_the_future_is_answered_with_a_gap() -> None:
    feed = Feed(5)
    assert (await take(feed, 1, after="9.1"))[0].kind == "gap"


async def test_a_token_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="resume token"):
        await take(Feed(0), 1, after="yesterday")


async def test_a_slow_reader_is_told_where_to_resume_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "QUEUE_ITEMS", 3)
    feed = Feed(0)
    feed.changed(1, change("t1"))
    stream = feed.subscribe("0.0", "", False)
    first = await anext(stream)
    for sequence in range(2, 10):
        feed.changed(sequence, change(f"t{sequence}"))
    rest = [item async for item in stream]
    assert first.task == "t1"
    assert [item.task for item in rest] == ["t2", "t3", "t4", ""]
    assert rest[-1].kind == "lagged"
    assert rest[-1].token == rest[-2].token
    assert not feed.listened
    again = await take(feed, 5, after=rest[-1].token)
    assert [item.task for item in again] == ["t5", "t6", "t7", "t8", "t9"]


async def test_a_reader_of_one_graph_hears_of_no_other_and_logs_only_if_asked() -> None:
    feed = Feed(0)
    quiet, loud = feed.subscribe("0.0", "g1", False), feed.subscribe("0.0", "g1", True)
    feed.changed(1, change("g1.a"))
    assert (await anext(quiet)).task == (await anext(loud)).task == "g1.a"
    feed.changed(2, change("g2.a"))
    feed.transient(Item(kind="log", token=feed.token, at=1.0, task="g1.a", data=b"x"))
    feed.changed(3, change("g1.b"))
    assert (await anext(loud)).kind == "log"
    assert (await anext(quiet)).task == "g1.b"
