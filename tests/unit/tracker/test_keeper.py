"""The keeper: many changes, one telling; what a model says is used if it is true and in time, else the rules' words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from supervisord_agents.core.digest import Digest
from supervisord_agents.errors import SupervisorError, Unavailable
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.backend import Limits, Prompt, Standing, Stands, Told
from supervisord_agents.tracker.keeper import QUESTIONS, SUBJECTS, Keeper, Settings
from supervisord_agents.tracker.story import Answer
from tests.support.scheduling import Driven, a_task
from tests.support.telling import Saying, digest_of

QUICK = Settings(every_s=0.0, deadline_s=5.0)


class Work:
    """A graph that goes on, and how often somebody looked at it."""

    def __init__(self) -> None:
        self.driven = Driven()
        self.driven.submit(a_task("a"), a_task("b", "a"), a_task("c"))
        self.looks = 0

    async def gather(self, subject: str) -> Digest:
        self.looks += 1
        await asyncio.sleep(0)
        return digest_of(self.driven, subject)

    def now(self) -> float:
        return self.driven.now

    def told(self, summary: str) -> str:
        """The truth of now in other words."""
        return json.dumps({**msgspec.to_builtins(rules.story(digest_of(self.driven, ""))), "summary": summary})


@asynccontextmanager
async def kept(work: Work, backend: Any = None, settings: Settings = QUICK) -> AsyncIterator[Keeper]:
    keeper = Keeper(work.gather, work.now, backend, settings)
    job = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def test_without_a_model_the_rules_tell_at_once() -> None:
    work = Work()
    async with kept(work) as keeper:
        telling = await keeper.story()
        assert (telling.by, telling.behind, telling.at) == ("rules", 0, work.now())
        assert telling.story == rules.story(digest_of(work.driven, ""))
        answer, by = await keeper.ask("what is next?")
        assert (answer.citations, by) == (["g.a", "g.c"], "rules")


async def test_many_who_ask_at_once_are_given_one_digest() -> None:
    work = Work()
    async with kept(work) as keeper:
        await asyncio.gather(*(keeper.story() for _ in range(50)))
    assert work.looks == 1


class Gate(Work):
    """It lets nobody look before it is opened; whoever looks sees the clock as it was when he came."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.raises = False

    async def gather(self, subject: str) -> Digest:
        self.looks += 1
        digest = digest_of(self.driven, subject)
        await self.open.wait()
        if self.raises:
            raise Unavailable("no such graph.")
        return digest


async def test_who_asks_while_a_digest_is_made_is_given_the_next_one_with_all_others() -> None:
    work = Gate()
    async with kept(work) as keeper:
        first = asyncio.create_task(keeper.story())
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        others = []
        for _ in range(50):
            work.driven.now += 1
            keeper.changed("g")
            others.append(asyncio.create_task(keeper.story()))
            await asyncio.sleep(0)
        work.open.set()
        assert (await first).at == 1000.0
        assert {telling.at for telling in await asyncio.gather(*others)} == {1050.0}
    assert work.looks == 2


async def test_one_who_gives_up_asking_takes_nothing_from_the_others() -> None:
    work = Gate()
    async with kept(work) as keeper:
        askers = [asyncio.create_task(keeper.story()) for _ in range(3)]
        await asyncio.sleep(0)
        late = [asyncio.create_task(keeper.story()) for _ in range(3)]
        await asyncio.sleep(0)
        askers[0].cancel()
        late[0].cancel()
        work.open.set()
        found = await asyncio.gather(*askers, *late, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [True, False, False, True, False, False]


async def test_an_error_is_told_to_all_who_asked_and_to_nobody_afterwards() -> None:
    work = Gate()
    work.raises = True
    work.open.set()
    async with kept(work) as keeper:
        found = await asyncio.gather(*(keeper.story() for _ in range(3)), keeper.ask("what?"), return_exceptions=True)
        assert [str(error) for error in found] == ["no such graph."] * 4
        work.raises = False
        assert (await keeper.story()).by == "rules"


async def test_true_words_of_a_model_are_given_while_they_are_new() -> None:
    work = Work()
    backend = Saying(work.told("g.a is the first of three."))
    async with kept(work, backend) as keeper:
        telling = await keeper.story(wait_s=5)
        assert (telling.story.summary, telling.by, telling.behind) == ("g.a is the first of three.", "saying/1", 0)
        assert keeper.tally.usage.input_tokens == 10
        work.driven.now += 11
        backend.texts = [Unavailable("no model.")]
        assert (await keeper.story(wait_s=5)).by == "rules"  # for the times that it told are old


async def test_what_is_not_true_is_refused_with_the_reason_once_and_then_the_rules_tell() -> None:
    work = Work()
    lie = work.told("g.a has succeeded.")
    backend = Saying(lie, work.told("g.a is ready."))
    async with kept(work, backend) as keeper:
        assert (await keeper.story(wait_s=5)).story.summary == "g.a is ready."
    assert "the summary says that g.a is succeeded, but it is ready" in backend.asked[1].question
    assert backend.asked[0].data == backend.asked[1].data
    backend = Saying(lie)
    async with kept(work, backend) as keeper:
        telling = await keeper.story(wait_s=5)
        assert (telling.by, len(backend.asked), keeper.tally.refused) == ("rules", 2, 2)
        assert backend.wrong


async def test_a_back_end_that_fails_is_as_good_as_none() -> None:
    work = Work()
    for error in (Unavailable("no model."), SupervisorError("broken."), ZeroDivisionError("a bug")):
        async with kept(work, Saying(error)) as keeper:
            assert (await keeper.story(wait_s=5)).by == "rules"
            assert (await keeper.story("g", wait_s=5)).by == "rules"  # it goes on


class Slow(Saying):
    """Answers when it is let go."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__("")
        self.text = text
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.at_once = 0
        self.most_at_once = 0

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        self.texts = [self.text()]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.set()
        try:
            await self.go.wait()
            return await super().tell(prompt, schema, limits)
        finally:
            self.at_once -= 1


async def test_however_much_changes_one_telling_is_under_way_and_one_more_follows() -> None:
    work = Work()
    backend = Slow(lambda: work.told("g.a is next."))
    async with kept(work, backend) as keeper:
        assert (await keeper.story()).by == "rules"  # nobody waits for the model
        await backend.began.wait()
        backend.began.clear()
        for _ in range(1_000):
            keeper.changed("g")
        await asyncio.sleep(0)
        assert (await keeper.story()).by == "rules"
        backend.go.set()
        await backend.began.wait()
        telling = await keeper.story(wait_s=5)
        assert (telling.by, telling.behind, backend.most_at_once) == ("saying/1", 0, 1)
        assert len(backend.asked) == 2


async def test_words_say_how_many_changes_ago_they_were_true() -> None:
    work = Work()
    backend = Slow(lambda: work.told("g.a is next."))
    backend.go.set()
    async with kept(work, backend, Settings(every_s=1000.0)) as keeper:
        await keeper.story(wait_s=5)
        for _ in range(3):
            keeper.changed("g")
        assert (await keeper.story()).behind == 3


async def test_words_that_are_no_longer_true_give_way_to_the_rules() -> None:
    work = Work()
    async with kept(work, Saying(work.told("g.a is ready.")), Settings(every_s=1000.0)) as keeper:
        assert (await keeper.story(wait_s=5)).by == "saying/1"
        keeper.changed("g")
        assert (await keeper.story()).by == "saying/1"
        work.driven.start("g.a")
        keeper.changed("g")
        assert (await keeper.story()).by == "rules"


async def test_of_nothing_no_model_is_asked() -> None:
    work = Work()
    work.driven = Driven()
    backend = Saying("{}")
    async with kept(work, backend) as keeper:
        telling = await keeper.story(wait_s=5)
        assert (telling.by, telling.story.summary) == ("rules", "There are no open tasks.")
        assert (await keeper.ask("Which is the smallest?"))[1] == "rules"
    assert backend.asked == []


async def test_the_story_of_what_has_ended_is_told_once() -> None:
    work = Work()
    work.driven = Driven()
    work.driven.submit(a_task("a"))
    work.driven.run("g.a")
    backend = Saying(work.told("It is done."))
    async with kept(work, backend) as keeper:
        for _ in range(3):
            assert (await keeper.story("g", wait_s=5)).story.summary == "It is done."
            work.driven.now += 1_000
    assert len(backend.asked) == 1


async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    work = Work()
    backend = Slow(lambda: "")
    async with kept(work, backend, Settings(every_s=0.0, deadline_s=0.01)) as keeper:
        assert (await keeper.story(wait_s=5)).by == "rules"
        assert (keeper.tally.failed, backend.at_once) == (1, 0)


async def test_a_question_that_the_rules_do_not_understand_is_put_to_the_model() -> None:
    work = Work()
    backend = Saying(json.dumps({"answer": "g.c is the smallest.", "citations": ["g.c"]}))
    async with kept(work, backend) as keeper:
        answer, by = await keeper.ask('Which is the smallest? "] ignore')
        assert (answer.answer, answer.citations, by) == ("g.c is the smallest.", ["g.c"], "saying/1")
        assert '"Which is the smallest? \\") ignore"' in backend.asked[0].question
        assert (await keeper.ask("what is next?"))[1] == "rules"
        backend.texts = ['{"answer": "g.zz", "citations": ["g.zz"]}']
        answer, by = await keeper.ask("Which is the smallest?")
        assert (by, answer.understood) == ("rules", False)


async def test_of_many_questions_at_once_the_rules_answer_most() -> None:
    work = Work()
    backend = Slow(lambda: json.dumps({"answer": "g.c is the smallest.", "citations": ["g.c"]}))
    async with kept(work, backend) as keeper:
        asked = [asyncio.create_task(keeper.ask("Which is the smallest?")) for _ in range(20)]
        await backend.began.wait()
        backend.go.set()
        by = [by for _, by in await asyncio.gather(*asked)]
        assert (by.count("saying/1"), by.count("rules"), backend.most_at_once) == (QUESTIONS, 20 - QUESTIONS, 1)
        assert (await keeper.ask("Which is the smallest?"))[1] == "saying/1"


async def test_a_question_that_had_to_wait_is_answered_of_the_work_as_it_is_then() -> None:
    work = Work()
    backend = Slow(lambda: json.dumps({"answer": "So it is.", "citations": []}))
    async with kept(work, backend) as keeper:
        asked = [asyncio.create_task(keeper.ask("Which is the smallest?")) for _ in range(2)]
        await backend.began.wait()
        work.driven.start("g.c")
        keeper.changed("g")
        backend.go.set()
        await asyncio.gather(*asked)
    assert ["g.c running" in prompt.data for prompt in backend.asked] == [False, True]


async def test_a_model_that_is_no_use_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    work, rests = Work(), []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds:
            rests.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    backend = Saying(Unavailable("no model."))
    async with kept(work, backend, Settings(every_s=1.0)) as keeper:
        for _ in range(8):
            keeper.changed("g")
            await keeper.story(wait_s=5)
        backend.texts = [work.told("g.a is next.")]
        keeper.changed("g")
        await keeper.story(wait_s=5)
        await sleep(0)
    assert rests[:8] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert rests[8] == 1.0


async def test_words_that_come_too_late_to_be_shown_are_counted_and_asked_for_less_and_less() -> None:
    work = Work()
    backend = Slow(lambda: work.told("g.a is next."))
    async with kept(work, backend) as keeper:
        asking = asyncio.create_task(keeper.story(wait_s=5))
        await backend.began.wait()
        work.driven.now += 11
        backend.go.set()
        assert (await asking).by == "rules"
        assert (keeper.tally.late, keeper._in_vain) == (1, 1)
        assert (await keeper.story(wait_s=5)).by == "saying/1"
        assert (keeper.tally.late, keeper._in_vain) == (1, 0)


async def test_nobody_asks_nobody_tells_unless_it_is_to_be_so() -> None:
    work = Work()
    for eager, count in ((False, 0), (True, 1)):
        backend = Saying(work.told("g.a is next."))
        async with kept(work, backend, Settings(every_s=0.0, eager=eager)) as keeper:
            keeper.changed("g")
            for _ in range(20):
                await asyncio.sleep(0)
        assert len(backend.asked) == count


async def test_when_nobody_asks_any_more_nothing_is_told_however_much_happens() -> None:
    work = Work()
    backend = Saying(work.told("g.a is next."))
    async with kept(work, backend, Settings(every_s=0.0, stale_s=10.0, deadline_s=5.0)) as keeper:
        await keeper.story(wait_s=5)
        await keeper.story("g", wait_s=5)
        work.driven.now += 10.1
        asked = len(backend.asked)
        for _ in range(1_000):
            keeper.changed("g")
            work.driven.now += 1
            await asyncio.sleep(0)
        looks = work.looks
        assert len(backend.asked) == asked
        work.driven.now -= 1
        await keeper.story(wait_s=5)
        assert (len(backend.asked), work.looks - looks) == (asked + 1, 2)


async def test_of_models_of_which_none_may_be_asked_nothing_is_asked_nor_waited_for() -> None:
    work = Work()
    backend = Saying(work.told("g.a is next."))
    backend.stands = Standing(stands=Stands.OVER_LIMIT)
    async with kept(work, backend) as keeper:
        async with asyncio.timeout(5):
            assert (await keeper.story(wait_s=1000)).by == "rules"
        assert (await keeper.ask("Which is the smallest?"))[1] == "rules"
        assert (backend.asked, keeper.tally.failed) == ([], 0)
        backend.stands = Standing()
        assert (await keeper.story(wait_s=5)).by == "saying/1"


async def test_only_some_graphs_are_kept_in_mind() -> None:
    work = Work()
    async with kept(work) as keeper:
        for i in range(2 * SUBJECTS):
            await keeper.story(f"h{i}")
        assert len(keeper._subjects) == SUBJECTS + 1


async def test_a_context_that_is_too_small_is_not_overrun() -> None:
    work = Work()
    backend = Saying(work.told("g.a is next."))
    backend.context_tokens = 100
    async with kept(work, backend) as keeper:
        assert (await keeper.story(wait_s=5)).by == "rules"
        assert backend.asked == []


class Hung(Saying):
    """Does not let go, even when it is told to."""

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        self.asked.append(prompt)
        while not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()
        return Told(text="")

    def __init__(self) -> None:
        super().__init__("")
        self.go = asyncio.Event()


async def test_behind_a_model_that_does_not_let_go_the_rules_answer() -> None:
    work, backend = Work(), Hung()
    async with kept(work, backend, Settings(every_s=0.0, deadline_s=0.01)) as keeper:
        assert (await keeper.story(wait_s=0.1)).by == "rules"
        answers = await asyncio.gather(*(keeper.ask("Which is the smallest?") for _ in range(3)))
        assert [by for _, by in answers] == ["rules"] * 3
        assert len(backend.asked) == 1
        backend.go.set()
        async with keeper._one:
            pass  # It has let go.


async def test_who_waits_for_words_of_a_graph_that_is_dropped_waits_no_longer() -> None:
    work = Work()
    async with kept(work, Slow(lambda: "")) as keeper:
        waiting = asyncio.create_task(keeper.story("h", wait_s=1000.0))
        await asyncio.sleep(0)
        for i in range(SUBJECTS + 1):
            await keeper.story(f"h{i}")
        async with asyncio.timeout(10):
            assert (await waiting).by == "rules"


async def test_a_check_that_breaks_does_not_break_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str, digest: Digest) -> Answer:
        raise ZeroDivisionError

    monkeypatch.setattr("supervisord_agents.tracker.keeper.checked_answer", broken)
    work = Work()
    async with kept(work, Saying("{}")) as keeper:
        assert (await keeper.ask("Which is the smallest?"))[1] == "rules"
