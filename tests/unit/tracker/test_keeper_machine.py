"""Whatever happens, in simulated time: one inference, never more than one behind, no old words, and in the end the last."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from supervisord_agents.core.digest import Digest
from supervisord_agents.errors import Unavailable
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.backend import Limits, Prompt, Standing, Stands, Told
from supervisord_agents.tracker.keeper import ALL, Keeper, Settings
from tests.simulation.loop import Loop
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of

GATHER_S = 0.01
SETTINGS = Settings(every_s=1.0, stale_s=10.0, deadline_s=20.0)
LATELY_S = max(SETTINGS.stale_s, SETTINGS.deadline_s)


class Model:
    """Tells which version of the work it was shown, as fast and as truly as it is set to."""

    name = "model"
    context_tokens = 8192

    def __init__(self, work: KeeperMachine) -> None:
        self.work = work
        self.takes_s = 1.0
        self.does = "tell"
        self.asked = 0
        self.at_once = 0
        self.ended_at_version = 0
        """The version when the last inference ended: the next one knows as much."""

    def count(self, text: str) -> int:
        return len(text) // 3 + 1

    def standing(self) -> Standing:
        return Standing(stands=Stands.OVER_LIMIT if self.does == "rest" else Stands.READY)

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        version, began, again = self.work.shown(prompt.data), self.work.loop.now, "was refused" in prompt.question
        self.expect(self.does != "rest" or again, "it may not be asked")
        self.expect(self.at_once == 0, "two inferences at a time")
        self.expect(self.work.somebody_wants(), "nobody has asked")
        self.expect(version >= self.ended_at_version or again, "it was shown what was old when the last inference ended")
        self.asked += 1
        self.at_once += 1
        try:
            await asyncio.sleep(self.takes_s)
            if self.does == "fail":
                raise Unavailable("no model.")
            if "Answer this question" in prompt.question:
                return Told(text='{"answer": "So it is.", "citations": []}', by="model")
            summary = "g.run has succeeded." if self.does == "lie" else f"g.run runs, v{version}."
            return Told(
                text=json.dumps({**msgspec.to_builtins(rules.story(self.work.digest(ALL))), "summary": summary}), by="model"
            )
        finally:
            self.at_once -= 1
            self.ended_at_version = self.work.version
            self.expect(self.work.loop.now - began <= SETTINGS.deadline_s + 1e-6, "it was waited for after the deadline")

    def expect(self, holds: bool, otherwise: str) -> None:
        """The keeper would take what is raised here for a failure of the model's."""
        if not holds:
            self.work.errors.append(AssertionError(otherwise))

    def judged(self, wrong: str) -> None:
        pass

    async def aclose(self) -> None:
        pass


class KeeperMachine(RuleBasedStateMachine):
    """A version is all that changes of the work; a task's report of progress has it."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self.loop = Loop(self.errors.append)
        self.driven = Driven()
        self.driven.submit(a_task("run"), a_task("next"))
        self.driven.start("g.run")
        self.version = 0
        self.since: list[float] = [self.loop.now]
        """When each version began."""
        self.asked_at = -1e9
        self.waiting = 0
        self.eager = False
        self.model = Model(self)

    @initialize(eager=st.booleans())
    def begin(self, eager: bool) -> None:
        self.eager = eager
        self.within(self._begin)

    def _begin(self) -> None:
        changed = msgspec.structs.replace(SETTINGS, eager=self.eager)
        self.keeper = Keeper(self.gather, lambda: self.loop.now, self.model, changed)
        self.job = self.loop.create_task(self.keeper.run())

    def within(self, callback: Any, *arguments: Any) -> None:
        """Call it in the loop."""
        self.loop.call_soon(callback, *arguments)
        self.run(0.0)

    def run(self, seconds: float) -> None:
        over: list[bool] = []
        self.loop.call_later(seconds, over.append, True)
        assert self.loop.run(lambda: bool(over) or bool(self.errors))
        if self.errors:
            raise self.errors[0]

    # What the keeper sees

    def digest(self, subject: str) -> Digest:
        self.driven.now = self.loop.now
        return digest_of(self.driven, subject, said={"g.run": (0.5, f"v{self.version}")})

    async def gather(self, subject: str) -> Digest:
        found = self.digest(subject)
        await asyncio.sleep(GATHER_S)
        return found

    @staticmethod
    def shown(text: str) -> int:
        """The version in an outline, or in a summary."""
        (version,) = re.findall(r"\bv(\d+)\b", text)
        return int(version)

    def somebody_wants(self) -> bool:
        # A refused telling is tried once more.
        return self.eager or self.waiting > 0 or self.loop.now - self.asked_at <= LATELY_S + SETTINGS.deadline_s + 1.0

    # What happens

    @rule(count=st.integers(1, 50))
    def change(self, count: int) -> None:
        self.within(self._change, count)

    def _change(self, count: int) -> None:
        for _ in range(count):
            self.version += 1
            self.since.append(self.loop.now)
            self.keeper.changed("g")

    @rule(subject=st.sampled_from((ALL, "g")), wait_s=st.sampled_from((0.0, 0.3, 5.0, 100.0)))
    def ask(self, subject: str, wait_s: float) -> None:
        self.within(lambda: self.loop.create_task(self._ask(subject, wait_s)).add_done_callback(self._asked))

    async def _ask(self, subject: str, wait_s: float) -> str:
        """Whose words were given."""
        self.asked_at = began = self.loop.now
        self.waiting += 1
        try:
            telling = await self.keeper.story(subject, wait_s)
        finally:
            self.waiting -= 1
        now = self.loop.now
        assert now - began <= wait_s + 2 * GATHER_S + 1e-6, "it waited for longer than it wanted to"
        if telling.by == rules.NAME:
            assert (telling.at, telling.behind) == (telling.digest.now, 0)
            return telling.by
        version = self.shown(telling.story.summary)
        assert telling.digest.now - telling.at <= SETTINGS.stale_s + GATHER_S, "old words"
        assert self.since[version] <= telling.at, "words from before their time"
        assert version == self.version or telling.behind > 0, "words that are behind, and do not say so"
        return telling.by

    @rule()
    def ask_a_question(self) -> None:
        """One that the rules do not understand."""
        self.within(lambda: self.loop.create_task(self._ask_a_question()).add_done_callback(self._asked))

    async def _ask_a_question(self) -> str:
        self.waiting += 1
        try:
            return (await self.keeper.ask("Which is the smallest?"))[1]
        finally:
            self.waiting -= 1

    def _asked(self, task: asyncio.Task[str]) -> None:
        if (error := task.exception()) is not None:
            self.errors.append(error)

    @rule(seconds=st.sampled_from((0.004, 0.005, 0.5, 3.0, 30.0, 200.0)))
    def pass_time(self, seconds: float) -> None:
        self.run(seconds)

    @rule(does=st.sampled_from(("tell", "tell", "lie", "fail", "rest")), takes_s=st.sampled_from((0.0, 0.5, 8.0, 15.0, 60.0)))
    def set_the_model(self, does: str, takes_s: float) -> None:
        self.model.does, self.model.takes_s = does, takes_s

    @rule(times=st.integers(1, 8))
    def fail_for_long(self, times: int) -> None:
        """So that it is asked less and less."""
        self.set_the_model("fail", 0.5)
        for _ in range(times):
            self.change(1)
            self.ask(ALL, 0.0)
            self.run(70.0)

    @invariant()
    def nothing_has_failed(self) -> None:
        if self.errors:
            raise self.errors[0]
        assert self.model.at_once <= 1

    def teardown(self) -> None:
        try:
            if hasattr(self, "keeper"):
                self._converges()
                self._falls_silent()
        finally:
            self.loop.close()

    def _converges(self) -> None:
        """After the last change whoever waits is given words that know it."""
        self.model.does, self.model.takes_s = "tell", 0.5
        self.change(1)
        for subject in (ALL, "g"):
            asking: list[asyncio.Task[str]] = []
            self.within(lambda subject=subject, asking=asking: asking.append(self.loop.create_task(self._ask(subject, 200.0))))
            assert self.loop.run(lambda asking=asking: asking[0].done())
            assert asking[0].result() == "model", "the rules' words, and a model that works"
            words = self.keeper._subjects[subject].words
            assert words is not None
            assert self.shown(words.summary) == self.version

    def _falls_silent(self) -> None:
        self.eager = False
        self.keeper._settings = SETTINGS
        self.run(LATELY_S + 100.0)
        asked = self.model.asked
        for _ in range(5):
            self.change(10)
            self.run(10.0)
        assert self.model.asked == asked, "nobody has asked"


TestKeeper = KeeperMachine.TestCase
TestKeeper.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
