"""What is going on in a graph, or in all that are open: what runs, what failed, what waits for what, what can be started next.

Made of a picture (core.picture) and of a note for each of its tasks; right by construction, whatever a model makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from itertools import chain

import msgspec

from supervisord_agents.core.eta import USUAL_SPREAD, Eta, Spread
from supervisord_agents.core.forecast import Slot
from supervisord_agents.core.graph import dependencies_first, find_cycle
from supervisord_agents.core.model import State
from supervisord_agents.core.picture import Node, Part, Picture
from supervisord_agents.core.ready import rank
from supervisord_agents.core.task import Task, graph_of

NAMED = 5
"""Dependencies that a note names."""
TEXT_CHARACTERS = 200
"""Kept of a text that a worker wrote."""
LISTED = 10
"""Of what holds others, and of what is next, in a story."""
TOLD = 20
"""Tasks whose states a story tells."""
CHAIN = 1_000
"""Tasks looked at for what holds one up."""


class Note(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a picture does not say of a task. `failure` and `message` may have been written by its worker."""

    type: str = ""
    befores: tuple[str, ...] = ()
    """Full ids of its first dependencies, ended or not."""
    failure: str = ""
    """Of its last attempt, or why it ended as it did."""
    secondary: bool = False
    """It ended only because another did."""
    attempt: int = 0
    fraction: float = -1.0
    """How far it is, 0 to 1; -1: not said."""
    message: str = ""
    """Its last report of progress."""
    held: str = ""
    """What a person has paused, and it may not start because of it."""
    kept: str = ""
    """Of what is ready: why nothing of its agents may start, such as an open breaker."""
    busy: bool = False
    """That is only because they do as much as they may."""
    spread: Spread = USUAL_SPREAD


NO_NOTE = Note()


def note_of(
    task: Task,
    kind: str,
    fraction: float = -1.0,
    message: str = "",
    held: str = "",
    spread: Spread = USUAL_SPREAD,
    kept: tuple[str, bool] = ("", False),
) -> Note:
    """Of a task of that type."""
    return Note(
        type=kind,
        befores=tuple(edge.before.id for edge in task.dependencies[:NAMED]),
        failure=task.failure.text[:TEXT_CHARACTERS] if task.failure else "",
        secondary=task.ended_by_dependency,
        attempt=task.attempt,
        fraction=fraction,
        message=message[:TEXT_CHARACTERS],
        held=held,
        kept=kept[0],
        busy=kept[1],
        spread=spread,
    )


class Digest:
    """Of the tasks inside the picture. Lists are of nodes; the most telling come first."""

    def __init__(
        self,
        picture: Picture,
        notes: Mapping[str, Note],
        *,
        subject: str = "",
        eta: Eta | None = None,
        ageing_s: float = 0.0,
        others: Mapping[State, int] | None = None,
        slots: Mapping[str, Slot | None] | None = None,
        saga: str = "",
    ) -> None:
        """`subject` is the graph, empty for all that are open; `others` counts tasks that are left out of the picture.

        `saga` says, in words, what undoes the graph, or which one it undoes (core.saga).
        """
        self.subject = subject
        self.now = picture.now
        self.eta = eta
        self.saga = saga
        self.others = others or {}
        self.slots = slots or {}
        """When each task that is needed has its worker; None: never, as things are."""
        self.nodes = [node for node in picture.nodes if node.part is not Part.RIVAL]
        self.inside = [node for node in self.nodes if node.part is Part.INSIDE]
        self.by_id = {node.id: node for node in self.nodes}
        self._notes = notes
        self._picture = picture.nodes
        self._ageing_s = ageing_s
        by_state: dict[State, list[Node]] = {state: [] for state in State}
        for node in self.inside:
            by_state[node.state].append(node)
        self._by_state = by_state
        self.counts = {state: len(nodes) for state, nodes in by_state.items() if nodes}

    def note(self, node: Node) -> Note:
        return self._notes.get(node.id, NO_NOTE)

    @cached_property
    def running(self) -> list[Node]:
        """The longest-running first."""
        return sorted(self._by_state[State.RUNNING], key=lambda node: (node.start, node.order))

    @cached_property
    def retrying(self) -> list[Node]:
        """Between two attempts; the next to be tried first."""
        return sorted(self._by_state[State.BACKING_OFF], key=lambda node: (node.not_before, node.order))

    @cached_property
    def next(self) -> list[Node]:
        """Ready, and held by nobody and nothing: the next to be started first; what has to wait for a busy agent is last."""
        return sorted((node for node in self._ready if not self._stays(node)), key=self._is_late)

    @cached_property
    def held(self) -> list[Node]:
        """Ready, but paused by a person."""
        return [*(node for node in self._ready if self.note(node).held), *self._by_state[State.PAUSED]]

    @cached_property
    def kept(self) -> list[Node]:
        """Ready, but nothing of its agents may start for a while: a breaker is open, or a provider asks to wait."""
        return [node for node in self._ready if self._stays(node) and not self.note(node).held]

    def _is_late(self, node: Node) -> bool:
        return self.note(node).busy

    def _stays(self, node: Node) -> bool:
        note = self.note(node)
        return bool(note.held or (note.kept and not note.busy))

    @cached_property
    def _ready(self) -> list[Node]:
        return sorted(
            self._by_state[State.READY],
            key=lambda node: rank(node.urgency, node.rest_s, node.order, node.ready_at, self._ageing_s),
        )

    @cached_property
    def blocked(self) -> list[Node]:
        """In order of submission."""
        return self._by_state[State.BLOCKED]

    @cached_property
    def failed(self) -> list[Node]:
        """What failed of itself before what failed because of another, the last to fail first."""
        nodes = [*self._by_state[State.DEAD], *self._by_state[State.FAILED]]
        return sorted(nodes, key=lambda node: (self.note(node).secondary, -node.end, node.order))

    @cached_property
    def cancelled(self) -> list[Node]:
        """What a person cancelled before what its edges did."""
        return sorted(self._by_state[State.CANCELLED], key=lambda node: (self.note(node).secondary, -node.end, node.order))

    @cached_property
    def ended(self) -> list[Node]:
        """In the order in which they ended."""
        return sorted((node for node in self.inside if node.ended), key=lambda node: (node.end, node.order))

    @cached_property
    def open_count(self) -> int:
        return sum(not node.ended for node in self.inside)

    @property
    def only_counted(self) -> int:
        """How many tasks are left out."""
        return sum(self.others.values())

    @property
    def all_ended(self) -> bool:
        """All, also what is left out."""
        return not self.open_count and not self.only_counted

    @cached_property
    def graph_ids(self) -> frozenset[str]:
        """Of all tasks in the picture, outside of the subject too."""
        return frozenset(map(graph_of, self.by_id))

    def waits(self, node: Node) -> list[Node]:
        """What a blocked task waits for."""
        return [self._picture[place] for place, _ in node.befores if not self._picture[place].ended]

    @cached_property
    def holders(self) -> list[Node]:
        """What blocked tasks wait for and does not wait itself, with the most work behind it first; and what is on a cycle."""
        found: dict[str, Node] = {}
        for node in self.nodes:
            if node.state is State.BLOCKED:
                found.update({before.id: before for before in self.waits(node) if before.state is not State.BLOCKED})
        found.update({node.id: node for node in self.cycle})
        return sorted(found.values(), key=lambda node: (-node.rest_s, node.order))

    @cached_property
    def cycle(self) -> list[Node]:
        """Tasks that wait for each other, if there are any: none of them can ever run."""
        befores = [[place for place, _ in node.befores if not self._picture[place].ended] for node in self._picture]
        return [self._picture[place] for place in find_cycle(befores)]

    def behind(self, node: Node) -> list[Node]:
        """What holds up one task in the end; empty if nothing does. At most CHAIN tasks are looked at."""
        found = [before for before in self._before(node) if before.state is not State.BLOCKED]
        return sorted(found, key=lambda node: (-node.rest_s, node.order))

    def depends(self, node: Node, other: Node) -> bool:
        """Whether the one waits for the other, or was to, directly or not. At most CHAIN tasks are looked at."""
        return other.id in self.note(node).befores or any(before is other for before in self._before(node))

    def _before(self, node: Node) -> list[Node]:
        """All that a task waits for, the nearest first."""
        found = {before.id: before for before in self.waits(node)}
        for link in (walk := list(found.values())):
            for before in self.waits(link):
                if before.id not in found and len(found) < CHAIN:
                    found[before.id] = before
                    walk.append(before)
        return walk

    def dependents(self, node: Node) -> list[Node]:
        """What waits for a task, directly."""
        blocked = (other for other in self.nodes if other.state is State.BLOCKED)
        return [other for other in blocked if any(before is node for before in self.waits(other))]

    @property
    def blocked_on(self) -> list[str]:
        """The ids that a story names."""
        return [node.id for node in self.holders[:LISTED]]

    @property
    def next_actionable(self) -> list[str]:
        """The ids that a story names."""
        return [node.id for node in self.next[:LISTED]]

    @cached_property
    def told(self) -> list[Node]:
        """The tasks whose states a story tells: what runs, what failed, what holds others, what is next."""
        lists = (self.running, self.retrying, self.failed, self.holders, self.next, self.held, self.kept, self.blocked)
        share = max(TOLD // len(lists), 1)
        found = {node.id: node for nodes in lists for node in nodes[:share]}
        for node in chain.from_iterable(lists):
            if len(found) >= TOLD:
                break
            found.setdefault(node.id, node)
        return list(found.values())

    def types(self) -> dict[str, Counter[State]]:
        """How many tasks of each type are in each state."""
        found: dict[str, Counter[State]] = {}
        for node in self.inside:
            found.setdefault(self.note(node).type, Counter())[node.state] += 1
        return found

    def levels(self) -> list[Counter[State]]:
        """Open tasks by how many others must end before them, one behind the other: the first wait for nothing."""
        depth: dict[int, int] = {}
        for place in _deepest_first(self._picture):
            befores = self._picture[place].befores
            depth[place] = max((depth.get(before, -1) + 1 for before, _ in befores), default=0)
        found: list[Counter[State]] = []
        for place, level in depth.items():
            node = self._picture[place]
            if node.open:
                while len(found) <= level:
                    found.append(Counter())
                found[level][node.state] += 1
        return found

    def graphs(self) -> dict[str, list[Node]]:
        """By graph, in order of submission."""
        found: dict[str, list[Node]] = {}
        for node in self.inside:
            found.setdefault(graph_of(node.id), []).append(node)
        return found


def _deepest_first(nodes: list[Node]) -> list[int]:
    """Places of open tasks, what is waited for before what waits; without cycles."""
    order = dependencies_first([[before for before, _ in node.befores] for node in nodes])
    return [place for place in order if not nodes[place].ended and nodes[place].part is not Part.RIVAL]
