"""A GGUF model by llama.cpp. Runs in the host's process only: nothing else imports llama_cpp."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import llama_cpp
import msgspec
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from supervisord_agents.tracker.grammar import form_of
from supervisord_agents.tracker.talk import GGUF, Ask, Load, Said, TooLong

TEMPLATE = "tokenizer.chat_template"
"""Where a GGUF has its chat template."""
BATCH_TOKENS = 256
"""Of a prompt at a time: between two batches it can be stopped."""
LOOK_AT = 256
"""Tokens that a grammar is asked about at a time, the likeliest first."""
HURRY_TOKENS = 16
"""When so many are left, or so much of the time has gone, an answer is brought to its end: a text that is cut is of more use."""
HURRY_AFTER = 0.9
LOG_ERROR = 4
"""ggml_log_level of ggml.h."""
Logits: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Tokens: TypeAlias = "np.ndarray[Any, np.dtype[np.int_]]"
_SYSTEM, _USER = "@@the-system@@", "@@the-user@@"


def _likeliest(logits: Logits, first: Sequence[int]) -> Iterator[Tokens]:
    """All tokens, in parts."""
    if first:
        yield np.array(first)
    yield np.array([logits.argmax()])
    near = np.argpartition(logits, -LOOK_AT)[-LOOK_AT:] if len(logits) > LOOK_AT else np.arange(len(logits))
    yield near[np.argsort(-logits[near])]
    tokens = np.argsort(-logits)  # of a large vocabulary, takes longer than all the rest
    yield from (tokens[start : start + LOOK_AT] for start in range(LOOK_AT, len(tokens), LOOK_AT))


class Chooser:
    """The likeliest token that a grammar allows. To ask the grammar for a whole vocabulary takes longer than a model thinks."""

    def __init__(self, vocab: Any, gbnf: str) -> None:
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocab, gbnf.encode(), b"root")
        if not self._sampler:
            raise ValueError("llama.cpp does not take the grammar")

    def choose(self, logits: Logits, first: Sequence[int] = ()) -> int:
        """The index of the highest logit of those that may come next; one of `first`, if one of these may."""
        for part in _likeliest(logits, first):
            allowed = self.allowed(part)
            if allowed.any():
                return int(part[allowed.argmax()])
        raise ValueError("the grammar allows no token of this vocabulary")

    def allowed(self, tokens: Tokens) -> Any:
        """Which of these may come next: an array of booleans."""
        data = (llama_cpp.llama_token_data * len(tokens))()
        for entry, token in zip(data, tokens, strict=True):
            entry.id = int(token)
        array = llama_cpp.llama_token_data_array(data=data, size=len(tokens), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return np.array([entry.logit > -np.inf for entry in data], dtype=np.bool_)

    def accept(self, token: int) -> None:
        """It comes next."""
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._sampler)


_complaints: deque[str] = deque(maxlen=20)


def _heard(level: int, text: bytes, data: Any) -> None:
    if level == LOG_ERROR:
        _complaints.append(text.decode("utf-8", "replace").partition(": ")[2].strip())


_hearing = llama_cpp.llama_log_callback(_heard)
llama_cpp.llama_log_set(_hearing, None)


class Model:
    """One loaded model, with the prompt before in its cache."""

    def __init__(self, load: Load) -> None:
        """Raises OSError or ValueError if it cannot be loaded."""
        with open(load.model, "rb") as file:
            if file.read(len(GGUF)) != GGUF:
                raise ValueError(f"{load.model} is not a GGUF file")
        _complaints.clear()
        try:
            self._llama = self._loaded(load)
        except ValueError as error:  # says only that it failed
            raise ValueError(f"{error}: {_complaints[0]}" if _complaints else str(error)) from None
        self.about = str(self._llama.metadata.get("general.name") or os.path.basename(load.model))
        self.context_tokens = int(self._llama.n_ctx())
        self._pieces = self._template()

    @staticmethod
    def _loaded(load: Load) -> Any:
        threads = load.threads or max(1, len(os.sched_getaffinity(0)) // 2)
        return llama_cpp.Llama(
            load.model,
            n_ctx=load.context_tokens,
            n_batch=BATCH_TOKENS,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=load.gpu_layers,
            verbose=False,
        )

    def tell(self, ask: Ask, stopped: Callable[[], bool]) -> Said:
        """Answer; `stopped` is asked after each token and each batch of the prompt. Raises TooLong."""
        began = time.monotonic()
        form = form_of(msgspec.json.decode(ask.schema))
        prompt = [*self._tokens(ask), *self._text(form.beginning)]
        if len(prompt) + ask.tokens > self.context_tokens:
            raise TooLong(len(prompt), ask.tokens)

        def over() -> bool:
            return time.monotonic() - began > ask.seconds or stopped()

        cached = self._read(prompt, over)
        read = time.monotonic()
        said: list[int] = []
        whole = False
        if cached >= 0:
            with contextlib.closing(Chooser(self._vocab, form.gbnf)) as chooser:

                def late() -> bool:
                    return len(said) >= ask.tokens - HURRY_TOKENS or time.monotonic() - began > ask.seconds * HURRY_AFTER

                for token in self._drawn(chooser, late):
                    whole = bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))
                    if whole or len(said) == ask.tokens or over():
                        break
                    said.append(token)
        return Said(
            id=ask.id,
            text=form.beginning + self._llama.detokenize(said).decode("utf-8", "replace"),
            prompt_tokens=len(prompt),
            cached_tokens=max(cached, 0),
            tokens=len(said),
            prompt_seconds=read - began,
            seconds=time.monotonic() - began,
            whole=whole,
        )

    def _drawn(self, chooser: Chooser, late: Callable[[], bool]) -> Iterator[int]:
        """Always the likeliest of what the grammar allows: the same prompt has the same answer. When it is late, the end."""
        closing = self._text('"')
        while True:
            logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
            found = np.ctypeslib.as_array(logits, shape=(self._llama.n_vocab(),))
            token = chooser.choose(found, closing if late() else ())
            yield token
            chooser.accept(token)
            self._llama.eval([token])

    def _read(self, tokens: list[int], over: Callable[[], bool]) -> int:
        """Have so much of the prompt in the cache; gives how much of it was there, or -1 if it was stopped on the way.

        llama_cpp does the same, but all at once.
        """
        llama = self._llama
        known = llama.input_ids[: llama.n_tokens].tolist()
        same = next((place for place, (old, new) in enumerate(zip(known, tokens, strict=False)) if old != new), len(known))
        same = min(same, len(tokens) - 1)  # the last is read for what follows it
        if not (same and llama._ctx.kv_cache_seq_rm(-1, same, -1)):
            same = 0
            llama.reset()
        llama.n_tokens = same
        for start in range(same, len(tokens), BATCH_TOKENS):
            if over():
                return -1
            llama.eval(tokens[start : start + BATCH_TOKENS])
        return same

    # The prompt

    def _tokens(self, ask: Ask) -> list[int]:
        """Only the template has control tokens: in what others wrote, the text of one is a text."""
        system, user = ask.system, f"{ask.data}\n\n{ask.question}"
        before, between, after = self._pieces
        if between is None:
            return [*before, *self._text(f"{system}\n\n{user}"), *after]
        return [*before, *self._text(system), *between, *self._text(user), *after]

    def _text(self, text: str, *, control: bool = False) -> list[int]:
        return list(self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=control))

    def _template(self) -> tuple[list[int], list[int] | None, list[int]]:
        """What stands before the system prompt, between it and the rest, and after; None: it is a part of the rest."""
        system = {"role": "system", "content": _SYSTEM}
        user = {"role": "user", "content": _USER}
        for messages in ([system, user], [user]):
            text = self._rendered(messages)
            if text.count(_USER) == 1 and text.count(_SYSTEM) == len(messages) - 1:
                before, _, rest = text.partition(_SYSTEM) if len(messages) > 1 else ("", "", text)
                between, _, after = rest.partition(_USER)
                parts = [self._text(part, control=True) for part in (before, between, after)]
                opening = [] if self._opens(text) else self._opening()
                if len(messages) > 1:
                    return [*opening, *parts[0]], parts[1], parts[2]
                return [*opening, *parts[1]], None, parts[2]
        return self._opening(), None, self._text("\n\n")

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        template = self._llama.metadata.get(TEMPLATE, "")
        if not template:
            return ""
        try:
            formatter = Jinja2ChatFormatter(template, self._name(self._llama.token_eos()), self._name(self._llama.token_bos()))
            return str(formatter(messages=messages).prompt)
        except Exception:  # a template may raise anything for what it does not know, such as a system prompt
            return ""

    def _opens(self, text: str) -> bool:
        name = self._name(self._llama.token_bos())
        return bool(name) and text.startswith(name)

    def _opening(self) -> list[int]:
        adds = llama_cpp.llama_vocab_get_add_bos(self._vocab)
        return [self._llama.token_bos()] if adds and self._llama.token_bos() >= 0 else []

    def _name(self, token: int) -> str:
        return self._llama.detokenize([token], special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def _vocab(self) -> Any:
        return llama_cpp.llama_model_get_vocab(self._llama.model)
