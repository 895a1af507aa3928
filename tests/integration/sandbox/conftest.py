from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sandbox.spawner import Spawner
from tests.support.sandbox import LOOK, Maker, maker


@pytest.fixture(scope="package", params=["root", "ordinary"])
def by(request: pytest.FixtureRequest) -> Iterator[Maker]:
    """Who makes the sandboxes: root, or an ordinary user."""
    with maker(request.param) as found:
        yield found


@pytest.fixture(scope="package")
def seen(by: Maker) -> dict[str, Any]:
    """What a program sees whose caller has groups, descriptors that any child would inherit, and a variable that is his alone."""
    leaked = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    environment = {**by.environment(), "SECRET": "of the caller", "LANG": "C.UTF-8", "TERM": "dumb"}
    try:
        groups = [4, 27] if os.geteuid() == 0 else None
        found: dict[str, Any] = by.python(
            LOOK, options=("--env", "GIVEN=a=b"), env=environment, pass_fds=leaked, extra_groups=groups
        )
    finally:
        for descriptor in leaked:
            os.close(descriptor)
    return found


@pytest.fixture(params=[0, 2], ids=["on demand", "parked"])
async def spawner(request: pytest.FixtureRequest) -> AsyncIterator[Spawner]:
    """A fork server of the user that the tests run as."""
    started = Spawner.start(cgroup_name=f"test-spawner-{os.getpid()}", parked=request.param)
    yield started
    await started.aclose()
