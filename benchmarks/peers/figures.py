"""From raw samples to the figure of a cell: medians over the rounds, and the ratio to ours."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import catalog

OURS = "ours/only"

_FIGURES = {"submit_one": "p50_ms", "memory": "bytes"}
"""What a work is compared by; else `per_s`, of many clients too: a lock may serve a few of them quickly and starve the others."""
_LESS_IS_BETTER = frozenset(_FIGURES)


@dataclass(frozen=True)
class Cell:
    """`figure` None: there is none, and `reason` says why. `ratio` over 1: ours is ahead, so many times."""

    figure: float | None = None
    ratio: float | None = None
    median: dict[str, float] | None = None
    count: int = 0
    wanted: int = 0
    reason: str = ""


def cell(run: dict[str, Any], name: str, work: str) -> Cell:
    """The cell of `module/setting` and a work."""
    samples = run["cells"].get(name, {}).get(work, [])
    good = [sample for sample in samples if "cannot" not in sample and "failed" not in sample]
    if not good:
        reasons = [sample.get("cannot") or f"failed: {sample['failed']}" for sample in samples]
        return Cell(reason=reasons[0] if reasons else "not measured")
    median = {
        key: statistics.median(sample[key] for sample in good)
        for key, value in good[0].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    key = _FIGURES.get(work, "per_s")
    figure = median.get(key)
    ratio = None
    if figure is not None:
        ours = figure if name == OURS else cell(run, OURS, work).figure
        if ours and figure > 0:
            ratio = figure / ours if work in _LESS_IS_BETTER else ours / figure
    return Cell(figure, ratio, median, int(median.get("count", 0)), int(median.get("wanted", 0)))


def rows(run: dict[str, Any]) -> list[tuple[str, catalog.PeerEntry, catalog.Setting]]:
    """Every `module/setting` that has figures: ours, then the durable ones, then the fast ones."""
    found = [
        (f"{entry.module}/{setting.name}", entry, setting)
        for entry in catalog.PEERS
        for setting in entry.settings
        if f"{entry.module}/{setting.name}" in run["cells"]
    ]
    return sorted(found, key=lambda row: (row[0] != OURS, not row[2].durable))
