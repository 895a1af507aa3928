"""Stories and answers without a model: right, if dull. Whatever a model tells is measured against these.

Nothing that a worker wrote is in them: codes of failures are, their messages are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.model import State
from supervisord_agents.core.outline import end_text, seconds
from supervisord_agents.core.picture import Node
from supervisord_agents.tracker.story import Answer, Story, entries_of

NAME = "rules"
NAMED = 3
"""Tasks of a kind that a sentence names."""
ANSWERED = 10
"""Tasks of a kind that an answer names."""
MEANT = 5
"""Tasks that a question is taken to be about."""


def story(digest: Digest) -> Story:
    """The story of a digest."""
    return Story(
        summary=" ".join(_sentences(digest)),
        blocked_on=digest.blocked_on,
        next_actionable=digest.next_actionable,
        tasks=entries_of(digest),
    )


def _sentences(digest: Digest) -> Iterator[str]:
    total = len(digest.inside) + sum(digest.others.values())
    if not total:
        yield "There are no open tasks."
        return
    yield _ended(digest, total)
    yield from _open(digest)
    counted = [f"{count:,} {state}" for state, count in digest.others.items() if count]
    if counted:
        yield f"Others are only counted: {', '.join(counted)}."
    if digest.open_count:
        yield f"The end: {end_text(digest)}."


def _ended(digest: Digest, total: int) -> str:
    states = (State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED)
    counts = {state: digest.counts.get(state, 0) + digest.others.get(state, 0) for state in states}
    ended = sum(counts.values())
    what = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    graphs = len(digest.graphs())
    tasks = _tasks(total) if digest.subject or graphs < 2 else f"{_tasks(total)} in {graphs:,} graphs"
    if not ended:
        return f"None of {tasks} has ended."
    return f"{ended:,} of {tasks} {'has' if ended == 1 else 'have'} ended: {what}."


def _open(digest: Digest) -> Iterator[str]:
    if digest.failed:
        yield _failed(digest)
    if digest.running:
        names = _some(digest.running, NAMED, lambda node: _running(digest, node))
        yield f"{_count(digest.running)} {_verb(digest.running, 'runs', 'run')}: {names}."
    if digest.retrying:
        names = _some(digest.retrying, NAMED, lambda node: f"{node.id} in {seconds(node.not_before)} after {_code(digest, node)}")
        yield f"{_count(digest.retrying)} {_verb(digest.retrying, 'is', 'are')} tried again: {names}."
    if digest.cycle:
        yield f"These wait for each other and can never run: {_some(digest.cycle, ANSWERED, _id)}."
    if digest.blocked:
        on = f" on {_some(digest.holders, NAMED, _with_state)}" if digest.holders else ""
        yield f"{_count(digest.blocked)} {_verb(digest.blocked, 'is', 'are')} blocked{on}."
    if digest.held:
        yield f"{_count(digest.held)} {_verb(digest.held, 'is', 'are')} held by a pause: {_some(digest.held, NAMED, _id)}."
    if digest.next:
        yield f"Next: {_some(digest.next, NAMED, _id)}."


def _failed(digest: Digest) -> str:
    own = [node for node in digest.failed if not digest.note(node).secondary]
    because = len(digest.failed) - len(own)
    shown = own or digest.failed
    text = f"Failed: {_some(shown, NAMED, lambda node: f'{node.id} ({_code(digest, node)})')}"
    if own and because:
        text += f", and {because:,} more because of that"
    if any(node.state is State.DEAD for node in digest.failed):
        text += "; a person is to decide: agentctl dlq list"
    return text + "."


def _running(digest: Digest, node: Node) -> str:
    note = digest.note(node)
    text = f"{node.id} for {seconds(-node.start)}"
    text += f", attempt {note.attempt}" if note.attempt > 1 else ""
    return text + (f", {note.fraction:.0%} done" if note.fraction >= 0 else "")


# Questions


def answer(question: str, digest: Digest) -> Answer:
    """By the words of the question: what they ask, and which tasks they name. Of any other, how things are."""
    meant = named(question, digest)
    asked = re.sub(r"\w+[-_.]\w[\w.-]*", " ", question)  # what is said besides names
    for words, of_tasks, of_all in _KINDS:
        if words.search(asked):
            told = of_tasks(digest, meant) if meant else of_all(digest)
            return Answer(answer=told[0], citations=_cited(meant, told[1]))
    if meant:
        text, cited = _how(digest, meant)
        return Answer(answer=text, citations=_cited(meant, cited))
    text, cited = _standing(digest)
    return Answer(answer=text, citations=_cited([], cited), understood=not question.strip())


def _cited(*lists: Sequence[Node]) -> list[str]:
    return list(dict.fromkeys(node.id for nodes in lists for node in nodes))


def named(question: str, digest: Digest) -> list[Node]:
    """The tasks that a question names: by full or short id, type or graph, else by a part of one; the first MEANT.

    Of several tasks of a type, those that are open come first.
    """
    found_words = [word.strip(".-_") for word in re.findall(r"[\w.-]+", question)]
    # A single capital letter is a name, not an article.
    words = [word.casefold() for word in found_words if (word if len(word) < 2 else word.casefold()) not in _COMMON]
    nodes = sorted(digest.nodes, key=lambda node: (node.ended, node.order))
    for matches in (_is_id, _is_short_id, _is_type, _is_part):
        found = [node for node in nodes if any(matches(digest, node, word) for word in words)]
        if found:
            return found[:MEANT]
    return []


def _is_id(digest: Digest, node: Node, word: str) -> bool:
    return word == node.id.casefold()


def _is_short_id(digest: Digest, node: Node, word: str) -> bool:
    return word == node.id.partition(".")[2].casefold()


def _is_type(digest: Digest, node: Node, word: str) -> bool:
    return word == digest.note(node).type.casefold()


def _is_part(digest: Digest, node: Node, word: str) -> bool:
    short, kind = node.id.partition(".")[2].casefold(), digest.note(node).type.casefold()
    return word in re.split(r"[-_]", short) or word in re.split(r"\W|_", kind)


Told = tuple[str, Sequence[Node]]


def _what_blocks(digest: Digest) -> Told:
    if digest.cycle:
        return f"These wait for each other and can never run: {_some(digest.cycle, ANSWERED, _id)}.", digest.cycle
    if digest.held and not digest.holders:
        return f"Held by a pause: {_some(digest.held, ANSWERED, _id)}.", digest.held[:ANSWERED]
    if not digest.blocked:
        return "Nothing is blocked.", []
    held = _some(digest.holders, ANSWERED, lambda node: _how_it_is(digest, node))
    return f"{_count(digest.blocked)} blocked, on {held}.", digest.holders[:ANSWERED]


def _what_blocks_these(digest: Digest, nodes: Sequence[Node]) -> Told:
    told = [_what_blocks_it(digest, node) for node in nodes]
    return " ".join(text for text, _ in told), [cited for _, some in told for cited in some]


def _what_blocks_it(digest: Digest, node: Node) -> Told:
    if node.state is not State.BLOCKED:
        return f"Nothing blocks {_how_it_is(digest, node)}.", []
    if node in digest.cycle:
        return f"{node.id} waits for itself: {_some(digest.cycle, ANSWERED, _id)} wait for each other.", digest.cycle
    behind, direct = digest.behind(node), digest.waits(node)
    if not behind:
        return f"{node.id} is blocked.", direct
    text = f"{node.id} is blocked on {_some(behind, ANSWERED, lambda other: _how_it_is(digest, other))}"
    between = [other for other in direct if other not in behind]
    text += f", by way of {_some(between, NAMED, _id)}" if between else ""
    return text + ".", [*behind[:ANSWERED], *between[:NAMED]]


def _what_failed(digest: Digest) -> Told:
    if not digest.failed:
        return "Nothing has failed.", []
    return _failed(digest), digest.failed[:ANSWERED]


def _why_failed(digest: Digest, nodes: Sequence[Node]) -> Told:
    cited = [other for node in nodes for other in _causes(digest, node)]
    return " ".join(_why_it_failed(digest, node) for node in nodes), cited


def _why_it_failed(digest: Digest, node: Node) -> str:
    if node.state not in (State.FAILED, State.DEAD, State.CANCELLED, State.BACKING_OFF):
        return f"{_how_it_is(digest, node)}; it has not failed."
    causes = _causes(digest, node)
    because = f", because of {_some(causes, NAMED, lambda other: _how_it_is(digest, other))}" if causes else ""
    return f"{_how_it_is(digest, node)}{because}. agentctl why {node.id} tells more."


def _causes(digest: Digest, node: Node) -> list[Node]:
    if not digest.note(node).secondary:
        return []
    befores = [digest.by_id[name] for name in digest.note(node).befores if name in digest.by_id]
    return [before for before in befores if before.ended and before.state is not State.SUCCEEDED]


def _what_is_next(digest: Digest) -> Told:
    held = f" Held by a pause: {_some(digest.held, NAMED, _id)}." if digest.held else ""
    if digest.next:
        return f"Next: {_some(digest.next, ANSWERED, _id)}.{held}", digest.next[:ANSWERED]
    return f"Nothing can be started now.{held} {_what_blocks(digest)[0]}", _what_blocks(digest)[1]


def _when(digest: Digest) -> Told:
    if not digest.open_count:
        return "All have ended.", []
    return f"All will have ended {end_text(digest)}.", digest.running[:NAMED]


def _what_runs(digest: Digest) -> Told:
    if not digest.running:
        return "Nothing runs.", []
    return f"Running: {_some(digest.running, ANSWERED, lambda node: _running(digest, node))}.", digest.running[:ANSWERED]


def _what_ended(digest: Digest) -> Told:
    last = digest.ended[::-1][:ANSWERED]
    lately = f" Last: {_some(last, NAMED, _with_state)}." if last else ""
    return _ended(digest, len(digest.inside) + sum(digest.others.values())) + lately, last[:NAMED]


def _what_depends(digest: Digest, nodes: Sequence[Node]) -> Told:
    parts: list[str] = []
    cited: list[Node] = []
    for node in nodes:
        after = digest.dependents(node)
        cited += after[:ANSWERED]
        parts.append(f"{_some(after, ANSWERED, _with_state)} wait for {node.id}." if after else f"Nothing waits for {node.id}.")
    return " ".join(parts), cited


def _how(digest: Digest, nodes: Sequence[Node]) -> Told:
    return " ".join(f"{_how_it_is(digest, node)}." for node in nodes), nodes


def _standing(digest: Digest) -> Told:
    return " ".join(_sentences(digest)), digest.told[:ANSWERED]


def _how_it_is(digest: Digest, node: Node) -> str:
    if node.running:
        return f"{node.id} (running, {_running(digest, node).removeprefix(node.id + ' ')})"
    if node.state is State.BACKING_OFF:
        return f"{node.id} (tried again in {seconds(node.not_before)}, after {_code(digest, node)})"
    if digest.note(node).held and not node.ended:
        return f"{node.id} ({node.state}, held by a pause)"
    if node.ended and node.state is not State.SUCCEEDED:
        return f"{node.id} ({node.state}: {_code(digest, node)})"
    return _with_state(node)


_Kind = tuple[re.Pattern[str], Callable[[Digest, Sequence[Node]], Told], Callable[[Digest], Told]]


def _kind(words: str, of_tasks: Callable[[Digest, Sequence[Node]], Told], of_all: Callable[[Digest], Told]) -> _Kind:
    return re.compile(rf"\b(?:{words})\b", re.I), of_tasks, of_all


_KINDS: tuple[_Kind, ...] = (
    _kind("depends? on|needs|dependents?|waits? for|waiting for|after", _what_depends, _what_blocks),
    _kind("block(?:s|ed|ing)?|stuck|hold(?:s|ing)?(?: up)?|held|wait(?:s|ing)?|bottlenecks?", _what_blocks_these, _what_blocks),
    _kind("fail(?:s|ed|ing|ures?)?|errors?|wrong|broken?|crash(?:ed)?|dead|problems?", _why_failed, _what_failed),
    _kind("when|eta|how long|how much longer|finish(?:es)?|deadline|time left", _how, _when),
    _kind("next|ready|actionable|start(?:ed)?|should", _how, _what_is_next),
    _kind("runs?|running|going on|doing|in progress|active|busy|now", _how, _what_runs),
    _kind("ended|finished|done|completed?|succeeded|how many|how far|progress", _how, _what_ended),
    _kind("status|state|stand|standing|summary|story|how is|how are", _how, _standing),
)
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
    a all an and any are at be been being block blocked blocking blocks by can do does doing done ended error errors eta
    fail failed failing fails failure failures finish finished first for from go going graph happening has have held hold
    holding holds how i in is it its left long many me my need needs next no not now of on or our progress ready run running
    runs should so start state status still story stuck summary task tasks tell that the them there these they this time to
    up us wait waiting waits was we were what when which who why will with work wrong you
    """,
    )
)


# Words


def _some(nodes: Sequence[Node], limit: int, words: Callable[[Node], str]) -> str:
    text = ", ".join(words(node) for node in nodes[:limit])
    return text + (f" and {len(nodes) - limit:,} more" if len(nodes) > limit else "")


def _id(node: Node) -> str:
    return node.id


def _with_state(node: Node) -> str:
    return f"{node.id} ({node.state})"


def _code(digest: Digest, node: Node) -> str:
    """Of its failure, without what its worker said of it."""
    code = digest.note(node).failure.partition(":")[0]
    return code if re.fullmatch(r"[A-Z_]{1,40}", code) else "no code"


def _count(nodes: Sequence[Node]) -> str:
    return f"{len(nodes):,}"


def _verb(nodes: Sequence[Node], one: str, many: str) -> str:
    return one if len(nodes) == 1 else many


def _tasks(count: int) -> str:
    return f"{count:,} task" if count == 1 else f"{count:,} tasks"
