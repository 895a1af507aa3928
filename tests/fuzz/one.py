"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [options of libFuzzer] [directories]`. Ends the process."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["supervisord_agents", "sandbox", "dns", "ipaddress"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    logging.disable()
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
