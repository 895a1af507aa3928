"""A digest as text for a model: of bounded size, and its beginning the same for as long as possible.

A model server keeps what it has reckoned of a prompt up to the first token that differs from the prompt before. So what never
changes comes first (which tasks there are), then what only grows (what has ended, in that order), then what is always new.

Whatever a client or a worker wrote stands in it as a JSON string, short, on one line, and without the characters that tokens of
chat templates are made of: it is data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.eta import seconds
from supervisord_agents.core.model import State
from supervisord_agents.core.picture import Node

Count = Callable[[str], int]
"""The tokens of a text."""
MANY = 1_000
"""More tasks than that are told by graph and type, and what is open by level."""
ENDED_BLOCK = 50
"""Of what has ended long ago, so many tasks at a time become a sum; fewer where there is little room."""
STRUCTURE, ENDED = 0.45, 0.2
"""Parts of the budget; what is new has the rest."""
QUOTED_CHARACTERS = 120
GRAPHS, GRAPHS_NOW, TYPES, LEVELS = 40, 12, 12, 12
_HARMLESS = str.maketrans({"<": "‹", ">": "›", "|": "¦", "[": "(", "]": ")", "{": "(", "}": ")", "`": "'", "#": "♯"})


def tokens_at_most(text: str) -> int:
    """A count for where no tokenizer is at hand: no usual one makes more tokens of English and ids than this."""
    return (len(text.encode("utf-8", "replace")) + 1) // 2


def printable(text: str) -> str:
    """On one line: a blank for every character that would not be seen."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def quoted(text: str, limit: int = QUOTED_CHARACTERS) -> str:
    """A text of somebody's choosing as a harmless JSON string on one line."""
    words = printable(text[: 4 * limit]).translate(_HARMLESS)
    words = " ".join(words.split())
    return json.dumps(words if len(words) <= limit else words[: limit - 1] + "…", ensure_ascii=False)


def end_text(digest: Digest) -> str:
    """In words: when all will have ended."""
    eta = digest.eta
    if digest.only_counted:
        return "not known, for there are too many tasks"
    if eta is None:
        return "never, as things are"
    return eta.text


def outline(digest: Digest, budget: int, count: Count = tokens_at_most) -> str:
    """At most `budget` tokens as `count` counts them."""
    share = 1.0
    while True:
        text = _written(digest, int(budget * share), count)
        if count(text) <= budget or share < 0.05:
            break
        share *= 0.85
    return text if count(text) <= budget else _fitting(text.splitlines(), budget, count)


def _written(digest: Digest, budget: int, count: Count) -> str:
    structure = _fitting(list(_structure(digest)), int(budget * STRUCTURE), count)
    ended = _ended(digest, int(budget * ENDED), count)
    left = budget - count(structure) - count(ended) - 2
    return "\n".join(part for part in (structure, ended, _fitting(list(_now(digest)), left, count)) if part)


def _fitting(lines: Sequence[str], budget: int, count: Count) -> str:
    """As many of the first lines as fit, with a word about the others."""
    text = "\n".join(lines)
    if not lines or count(text) <= budget:
        return text
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        if count(_cut(lines, middle)) <= budget:
            low = middle
        else:
            high = middle
    return _cut(lines, low) if low else ""


def _cut(lines: Sequence[str], kept: int) -> str:
    return "\n".join([*lines[:kept], f"({len(lines) - kept} more lines are left out)"])


# What never changes, but that graphs and children are added


def _structure(digest: Digest) -> Iterator[str]:
    yield f"# Tasks of graph {digest.subject}" if digest.subject else "# Tasks"
    if len(digest.inside) > MANY:
        graphs = digest.graphs()
        for graph, nodes in list(graphs.items())[:GRAPHS]:
            yield f"{graph}: {len(nodes):,} tasks{_by_type(digest, nodes)}"
        if len(graphs) > GRAPHS:
            yield f"and {len(graphs) - GRAPHS:,} more graphs"
        return
    for node in digest.inside:
        note = digest.note(node)
        kind = f" type {quoted(note.type, 40)}" if note.type else ""
        after = f" after {', '.join(note.befores)}" if note.befores else ""
        yield f"{node.id}{kind}{after}"


def _by_type(digest: Digest, nodes: Iterable[Node]) -> str:
    types = Counter(digest.note(node).type for node in nodes)
    if set(types) == {""}:
        return ""
    some = sorted(types.items(), key=lambda item: (-item[1], item[0]))[:TYPES]
    return ": " + ", ".join(f"{number:,} of type {quoted(kind, 40) if kind else 'none'}" for kind, number in some)


# What only grows


def _ended(digest: Digest, budget: int, count: Count) -> str:
    nodes = digest.ended
    if not nodes:
        return ""
    lines = [_end(digest, node) for node in nodes]
    # Only whole blocks are summed up, so that this changes rarely. A line takes five tokens at the very least.
    block = min(max(budget // 40, 1), ENDED_BLOCK)
    blocks = max(-(-(len(nodes) - budget // 5) // block), 0)
    while True:
        early = nodes[: blocks * block]
        told = [f"the first {len(early):,}: {_counted(Counter(node.state for node in early))}"] if early else []
        text = "\n".join(["# Ended, in this order", *told, *lines[len(early) :]])
        if len(early) == len(nodes) or count(text) <= budget:
            return text
        blocks += 1


def _end(digest: Digest, node: Node) -> str:
    if node.state is State.SUCCEEDED:
        return f"{node.id} succeeded, took {seconds(node.end - node.start)}"
    note = digest.note(node)
    why = "because of another task" if note.secondary else quoted(note.failure)
    return f"{node.id} {node.state}: {why}"


# What is always new


def _now(digest: Digest) -> Iterator[str]:
    yield "# Now"
    others = {state: number for state, number in digest.others.items() if number}
    yield f"tasks: {_counted(digest.counts)}"
    if others:
        yield f"not looked at: {_counted(others)}"
    yield f"all will have ended: {end_text(digest)}" if digest.open_count else "all have ended"
    if digest.saga:
        yield digest.saga
    yield f"blocked_on: {', '.join(digest.blocked_on) or 'nothing'}"
    yield f"next_actionable: {', '.join(digest.next_actionable) or 'nothing'}"
    if digest.cycle:
        yield f"these wait for each other and can never run: {', '.join(node.id for node in digest.cycle)}"
    for node in digest.told:
        yield _told(digest, node)
    if not digest.subject:
        yield from _by_graph(digest)
    if len(digest.inside) > MANY:
        yield from _summed(digest)


def _by_graph(digest: Digest) -> Iterator[str]:
    """What is open of each graph, those with the most first."""
    counts = [(graph, Counter(node.state for node in nodes if not node.ended)) for graph, nodes in digest.graphs().items()]
    counts.sort(key=lambda item: -item[1].total())
    for graph, states in counts[:GRAPHS_NOW]:
        yield f"graph {graph}: {_counted(states)}"


def _summed(digest: Digest) -> Iterator[str]:
    types = sorted(digest.types().items(), key=lambda item: (-item[1].total(), item[0]))
    for kind, states in types[:TYPES]:
        yield f"type {quoted(kind, 40) if kind else 'none'}: {_counted(states)}"
    levels = digest.levels()
    for level, states in enumerate(levels[:LEVELS]):
        yield f"level {level} of what is open: {_counted(states)}"
    if len(levels) > LEVELS:
        yield f"and {len(levels) - LEVELS:,} more levels of {sum(states.total() for states in levels[LEVELS:]):,} tasks"


def _told(digest: Digest, node: Node) -> str:
    note = digest.note(node)
    text = f"{node.id} {node.state}"
    if node.running:
        text += f" for {seconds(-node.start)}"
        text += f", attempt {note.attempt}" if note.attempt > 1 else ""
        text += f", {note.fraction:.0%} done" if note.fraction >= 0 else ""
        text += f", its worker says {quoted(note.message)}" if note.message else ""
    elif node.state is State.BACKING_OFF:
        text += f", tried again in {seconds(node.not_before)}, after {quoted(note.failure)}"
    elif node.state is State.BLOCKED:
        waits = digest.waits(node)
        text += f", waits for {', '.join(before.id for before in waits[:3])}" if waits else ""
        text += f" and {len(waits) - 3} more" if len(waits) > 3 else ""
    elif note.held:
        text += f", held: {quoted(note.held)}"
    elif note.kept and not note.busy:
        text += f", but kept from starting: {quoted(note.kept)}"
    elif node.ended and note.failure:
        text += f": {quoted(note.failure)}"
    return text


def _counted(counts: Counter[State] | dict[State, int]) -> str:
    return ", ".join(f"{counts[state]:,} {state}" for state in State if counts.get(state)) or "none"
