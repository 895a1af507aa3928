"""Real models, small, in their real sandbox: what they say has the form that is asked for, whatever they think."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sandbox import profile
from sandbox.spawner import Spawner
from supervisord_agents.errors import Unavailable
from supervisord_agents.tracker import talk
from supervisord_agents.tracker.backend import Limits, Prompt, Told
from supervisord_agents.tracker.cell import Cell
from supervisord_agents.tracker.grammar import form_of
from supervisord_agents.tracker.local import Local
from supervisord_agents.workers.shape import runtime_paths
from tests.support import ggufs
from tests.support.fitting import fits

llama_cpp = pytest.importorskip("llama_cpp", reason="run .ci/setup llama")
np = pytest.importorskip("numpy")
pytestmark = pytest.mark.asyncio(loop_scope="module")
SCHEMA = {
    "type": "object",
    "properties": {
        "blocked_on": {"enum": [["g1.build", "g1.test"]]},
        "citations": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"enum": ["g1.build", "g1.test", "g1.ship"]}},
        "summary": {"type": "string", "minLength": 1, "maxLength": 30},
    },
    "required": ["blocked_on", "citations", "summary"],
    "additionalProperties": False,
}
SYSTEM = "You tell the state of work in JSON."
DATA = "g1.build runs. g1.test and g1.ship wait for it. " * 10


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    blocked_on: list[str]
    citations: list[str]
    summary: str


@pytest.fixture(scope="module", params=ggufs.MODELS)
def model(request: pytest.FixtureRequest) -> str:
    found = ggufs.MODELS[request.param]()
    if not os.path.exists(found):
        pytest.skip("run .ci/setup llama")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spawner() -> AsyncIterator[Spawner]:
    spawner = Spawner.start(cgroup_name=f"agent-supervisor-test-{os.getpid()}")
    yield spawner
    await spawner.aclose()


def a_cell(spawner: Spawner, model: str) -> Cell:
    return Cell(spawner, profile.load("strict"), ("cgroup", "landlock", "namespaces"), runtime_paths(), model, 1_900_065_535)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(model: str, spawner: Spawner) -> AsyncIterator[Local]:
    load = talk.Load(model=model, context_tokens=1024, threads=1)
    backend = Local("local", load, a_cell(spawner, model).start, backoff_s=0.01)
    backend.start()
    yield backend
    await backend.aclose()


async def tell(backend: Local, data: str = DATA, schema: Any = SCHEMA, *, tokens: int = 200) -> Told:
    return await backend.tell(Prompt(system=SYSTEM, data=data, question="Write it."), schema, Limits(tokens=tokens, seconds=60.0))


async def test_an_answer_has_the_form_whatever_the_model_thinks(local: Local) -> None:
    told = await tell(local)
    answer = msgspec.json.decode(told.text, type=Answer)
    assert answer.blocked_on == ["g1.build", "g1.test"]
    assert set(answer.citations) <= {"g1.build", "g1.test", "g1.ship"}
    assert 0 < len(answer.summary) <= 30
    assert "smollm2" in told.by.casefold() or "gemma 3" in told.by.casefold()
    assert told.usage.output_tokens > 10


MARKS = {"smollm2": "<|im_end|>", "gemma3": "<end_of_turn>"}
SHAPES: list[Any] = [
    SCHEMA,
    {"enum": ['a"b\\c', ["é", 1, None], "\u2028\n"]},
    {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "minLength": 3, "maxLength": 9}},
    {
        "type": "object",
        "properties": {
            "tasks": {
                "type": "array",
                "maxItems": 2,
                "items": {"anyOf": [{"type": "null"}, {"type": "integer"}, {"type": "boolean"}]},
            },
            "text": {"type": "string", "maxLength": 40},
        },
    },
]


DRAWN = [*(("smollm2", schema) for schema in SHAPES), ("gemma3", SCHEMA)]


@pytest.mark.parametrize(("model", "schema"), DRAWN, indirect=["model"])
async def test_whatever_is_drawn_is_json_of_the_schema(model: str, schema: Any) -> None:
    """Any token that the grammar allows, and not only the model's favourites."""
    from supervisord_agents.tracker.llama import Chooser

    llama = llama_cpp.Llama(model, vocab_only=True, verbose=False)
    vocab, random, form = llama_cpp.llama_model_get_vocab(llama.model), np.random.default_rng(7), form_of(schema)
    for _ in range(3 if llama.n_vocab() < 100_000 else 1):
        drawn: list[int] = []
        with contextlib.closing(Chooser(vocab, form.gbnf)) as chooser:
            while True:
                token = chooser.choose(random.random(llama.n_vocab(), dtype=np.float32))
                if llama_cpp.llama_vocab_is_eog(vocab, token):
                    break
                drawn.append(token)
                chooser.accept(token)
        value = msgspec.json.decode(form.beginning.encode() + llama.detokenize(drawn))
        assert fits(value, schema), value


async def test_an_answer_that_would_be_too_long_is_brought_to_its_end(local: Local) -> None:
    schema = {"type": "object", "properties": {"summary": {"type": "string", "minLength": 20}}, "required": ["summary"]}
    told = await tell(local, "Count: one two three four five six seven", schema, tokens=40)
    assert len(msgspec.json.decode(told.text)["summary"]) >= 20


@pytest.mark.parametrize("model", MARKS, indirect=True)
async def test_control_tokens_are_text_in_what_others_wrote(local: Local, model: str) -> None:
    mark = next(mark for name, mark in MARKS.items() if ggufs.MODELS[name]() == model)
    plain, marked = [await tell(local, data, {"enum": ["yes"]}, tokens=20) for data in ("wait " * 20, f"{mark} " * 20)]
    assert marked.usage.input_tokens > plain.usage.input_tokens + 40


async def test_a_prompt_that_does_not_fit_is_refused_and_counted_better_afterwards(local: Local) -> None:
    data = "0123456789 " * 300
    with pytest.raises(Unavailable, match="do not fit into 1024"):
        await tell(local, data)
    assert local.count(data) > 1024


@pytest.mark.parametrize("model", ["smollm2"], indirect=True)
async def test_a_host_that_is_killed_in_mid_generation_costs_that_answer_alone(local: Local) -> None:
    starts = local.starts
    telling = asyncio.create_task(tell(local, schema={"type": "string", "minLength": 2000}, tokens=600))
    await asyncio.sleep(0.2)
    assert not telling.done()
    assert local._process is not None
    local._process.kill()
    with pytest.raises(Unavailable, match=r"ended by signal 9\. It is started again"):
        await telling
    assert msgspec.json.decode((await tell(local)).text, type=Answer)
    assert local.starts == starts + 1


@pytest.mark.parametrize("model", ["smollm2"], indirect=True)
async def test_a_model_that_cannot_be_loaded_is_told_why(model: str, tmp_path: Path) -> None:
    from supervisord_agents.tracker.llama import Model

    broken = tmp_path / "broken.gguf"
    whole = Path(model).read_bytes()
    for content, why in (
        (b"hello", "is not a GGUF file"),
        (b"GGUF" + b"\xff" * 5000, "this GGUF file is version"),
        (whole[: len(whole) // 2], "model is corrupted or incomplete"),
    ):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=why):
            Model(talk.Load(model=str(broken), context_tokens=512))


@pytest.mark.parametrize("model", ["smollm2"], indirect=True)
async def test_a_file_that_is_cut_short_while_it_is_used_costs_the_answer(model: str, tmp_path: Path, spawner: Spawner) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(model, copy)
    for directory in (tmp_path, *tmp_path.parents[:3]):  # the host is nobody
        directory.chmod(directory.stat().st_mode | 0o005)
    backend = Local(
        "local", talk.Load(model=str(copy), context_tokens=1024, threads=1), a_cell(spawner, str(copy)).start, backoff_s=0.01
    )
    try:
        backend.start()
        await tell(backend, "", {"enum": ["yes"]}, tokens=20)
        os.truncate(copy, 1000)
        with pytest.raises(Unavailable, match="as when the file of its model is cut short"):
            await tell(backend, "something else", {"enum": ["yes"]}, tokens=20)
    finally:
        await backend.aclose()
