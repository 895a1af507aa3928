"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [options of libFuzzer] [directories]`. Ends the process."""

from __future__ import annotations

import logging
import random
import sys

import atheris
import msgspec

with atheris.instrument_imports(include=["supervisord_agents", "sandbox", "dns", "ipaddress"]):
    from tests.fuzz.mutation import mutated
    from tests.fuzz.targets import MESSAGES, TARGETS


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """As a message, most times: the decoder is no Python, so libFuzzer does not see how far its own changes get in it."""
    chance = random.Random(seed)
    if chance.random() < 0.8:
        try:
            changed = msgspec.msgpack.encode(mutated(msgspec.msgpack.decode(data), chance))
        except (ValueError, TypeError, OverflowError, RecursionError):
            changed = b""
        if 0 < len(changed) <= max_size:
            return changed
    return bytes(atheris.Mutate(data, max_size))


if __name__ == "__main__":
    logging.disable()
    name = sys.argv.pop(1)
    # A merge runs it again and again, by a shell.
    sys.argv[0] = f"{sys.executable} -m tests.fuzz.one {name}"
    atheris.Setup(sys.argv, TARGETS[name], **({"custom_mutator": _mutate} if name in MESSAGES else {}))
    atheris.Fuzz()
