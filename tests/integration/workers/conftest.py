from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.runtime_process import Make, RuntimeProcess


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Make]:
    made: list[RuntimeProcess] = []

    def make(**options: Any) -> RuntimeProcess:
        made.append(RuntimeProcess(tmp_path, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(make_worker: Make) -> RuntimeProcess:
    return make_worker()
