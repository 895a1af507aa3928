"""Every input that fuzzing has kept, once more (`make fuzz`, tests/fuzz)."""

from __future__ import annotations

import pytest

from tests.fuzz import corpora
from tests.fuzz.__main__ import SHARES
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_has_found_is_handled(name: str) -> None:
    inputs = corpora.read(name)
    assert inputs, f"no corpus of {name}: python -m tests.fuzz --minimise {name}"
    for data in (b"", *inputs):
        try:
            TARGETS[name](data)
        except Exception as error:
            error.add_note(f"on {data.hex()}")
            raise


def test_every_target_is_fuzzed() -> None:
    assert list(SHARES) == list(TARGETS)
    assert {path.stem for path in corpora.CORPUS.iterdir()} == set(TARGETS)
