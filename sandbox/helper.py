"""A process of the fork server's beside the sandboxes, which has no more than it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sandbox import linux


def live(
    name: str, run: Callable[[], None], kept: Sequence[int], rights: int, *, first: Callable[[], object] | None = None
) -> NoReturn:
    """Be it, from its clone on: `first`, and then `run` with these descriptors beside the standard ones and these capabilities.

    What is wrong with it is told on standard error.
    """
    code = 1
    try:
        if first:
            first()
        linux.close_all_but(*kept)
        linux.keep_capabilities(rights)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        run()
        code = 0
    except BaseException as error:
        print(f"sandbox: {name} has ended: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(code)
