"""The event stream: a ring of what happened lately, and a bounded queue a subscriber.

Tokens are `<journal sequence>.<index>`: they order all items, and name the place to resume from. They survive a restart of the
daemon as long as the records since the last snapshot do: replaying these fills the ring again. Progress and log items carry the
token of the last durable item before them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable

from supervisord_agents.core.events import Changed
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.messages import Item

RING_ITEMS = 50_000
QUEUE_ITEMS = 5_000
QUEUE_BYTES = 8 * 1024 * 1024
"""Of output that a reader may be behind."""

Token = tuple[int, int]


def _parse(token: str) -> Token:
    sequence, _, index = token.partition(".")
    try:
        return int(sequence), int(index)
    except ValueError as error:
        raise InvalidInput(
            f"`{token}` is not a resume token.", field="after", hint="Use the `token` of an item, or leave it empty."
        ) from error


class Feed:
    """All subscribers, and the items that a late one may still catch up on.

    The first change to be told is that of the record after `snapshot_sequence`; 0 stands for the beginning of the journal.
    """

    def __init__(self, snapshot_sequence: int) -> None:
        self._ring: deque[tuple[Token, Changed]] = deque()
        """Items are made of them only for who reads them."""
        # A token of the snapshot's own record may have been followed by more items of it, which are gone.
        start: Token = (snapshot_sequence + 1, 0) if snapshot_sequence else (0, 0)
        self._forgotten = start
        """No item up to here is in the ring."""
        self._last = start
        self._subscribers: set[_Subscriber] = set()
        self.heard: Callable[[Changed], None] | None = None
        """Told of every change too."""

    def changed(self, sequence: int, change: Changed) -> None:
        """A durable change of state."""
        index = self._last[1] + 1 if self._last[0] == sequence else 1
        self._last = (sequence, index)
        self._ring.append((self._last, change))
        if len(self._ring) > RING_ITEMS:
            self._forgotten, _ = self._ring.popleft()
        if self._subscribers:
            self._publish(_item(self._last, change))
        if self.heard is not None:
            self.heard(change)

    def transient(self, item: Item) -> None:
        """Progress or output: told to those who listen now, kept for nobody."""
        self._publish(item)

    @property
    def token(self) -> str:
        return f"{self._last[0]}.{self._last[1]}"

    @property
    def listened(self) -> bool:
        return bool(self._subscribers)

    def _publish(self, item: Item) -> None:
        lagging = [subscriber for subscriber in self._subscribers if not subscriber.put(item)]
        self._subscribers.difference_update(lagging)

    async def subscribe(self, after: str, only: str, logs: bool) -> AsyncGenerator[Item, None]:
        """Items from after the token on, without end; ends after a `lagged` item if the reader falls too far behind.

        Raises InvalidInput for a token that is none.
        """
        subscriber = _Subscriber(only, logs)
        for item in self._missed(after):
            subscriber.put(item, bounded=False)
        self._subscribers.add(subscriber)
        try:
            while True:
                item = await subscriber.get()
                yield item
                if item.kind == "lagged":
                    return
        finally:
            self._subscribers.discard(subscriber)

    def _missed(self, after: str) -> Iterable[Item]:
        if not after:
            return
        token = _parse(after)
        if token < self._forgotten or token > self._last:
            yield Item(kind="gap", token=self.token, at=0.0, message="older items are gone: list the tasks again.")
        yield from (_item(place, change) for place, change in self._ring if place > token)


def _item(place: Token, change: Changed) -> Item:
    return Item(
        kind="state",
        token=f"{place[0]}.{place[1]}",
        at=change.at,
        task=change.task,
        state=change.after,
        attempt=change.attempt,
        failure=change.failure,
    )


class _Subscriber:
    """One reader's queue."""

    def __init__(self, only: str, logs: bool) -> None:
        self._only = only
        self._logs = logs
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()

    def put(self, item: Item, *, bounded: bool = True) -> bool:
        """False: this reader is too slow, which is the last that it is told."""
        if not self._wants(item):
            return True
        lagged = bounded and bool(self._queue) and (len(self._queue) >= QUEUE_ITEMS or self._bytes + len(item.data) > QUEUE_BYTES)
        if lagged:
            item = Item(
                kind="lagged",
                token=self._queue[-1].token,
                at=item.at,
                message="this reader was too slow: subscribe again after this token.",
            )
        self._queue.append(item)
        self._bytes += len(item.data)
        self._ready.set()
        return not lagged

    def _wants(self, item: Item) -> bool:
        if item.kind == "log" and not self._logs:
            return False
        return not self._only or item.task == self._only or item.task.startswith(self._only + ".") or not item.task

    async def get(self) -> Item:
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        item = self._queue.popleft()
        self._bytes -= len(item.data)
        return item
