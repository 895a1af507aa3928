"""Table and plot of the comparison with the peers, from a canned run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.peers import catalog, figures, plot, table
from benchmarks.peers.__main__ import added

CANNED = Path(__file__).parent / "peers_run.json"


@pytest.fixture
def run() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(CANNED.read_text())
    return loaded


def test_ratio_over_one_means_that_ours_is_ahead(run: dict[str, Any]) -> None:
    assert figures.cell(run, "celery_redis/always", "submit_one").ratio == pytest.approx(4.0)  # 2 ms against 0.5
    assert figures.cell(run, "celery_redis/always", "noops").ratio == pytest.approx(2.0)  # 200/s against 400
    assert figures.cell(run, "sqlite_journal/full", "submit_one").ratio == pytest.approx(0.5)


def test_figure_is_the_median_of_the_rounds_and_failed_rounds_do_not_count(run: dict[str, Any]) -> None:
    assert figures.cell(run, "ours/only", "noops").figure == 400
    assert figures.cell(run, "celery_redis/always", "noops").figure == 200


def test_durable_rows_come_before_fast_ones_and_ours_first(run: dict[str, Any]) -> None:
    assert [name for name, _, _ in figures.rows(run)] == [
        "ours/only",
        "sqlite_journal/full",
        "celery_redis/always",
        "sqlite_journal/normal",
    ]


def test_every_row_of_the_table_has_a_ratio_or_a_numbered_reason(run: dict[str, Any]) -> None:
    text = table.markdown(run, {})
    rows = [line for line in text.splitlines() if line.startswith("| ") and "/" in line and "ours" not in line]
    width = text.splitlines()[[line.startswith("| peer") for line in text.splitlines()].index(True)].count("|")
    assert rows
    assert all(line.count("|") == width for line in rows)
    assert "| SQLite as the journal: WAL, synchronous=FULL | 0.25 / 0.50 ms (0.50×) | – [1] |" in text
    assert "[1] no dependencies" in text
    assert "(2.00×)" in text


def test_table_says_what_was_scaled_skipped_and_how_busy_the_machine_was(run: dict[str, Any]) -> None:
    text = table.markdown(run, {})
    assert "Celery, Redis (always): noops 1,000" in text
    assert "**Skipped**: ray_tasks/memory: not there." in text
    assert "the machine was busy" in text
    assert "celery 5.7.0" in text


def test_each_row_behind_has_a_line_with_a_reason(run: dict[str, Any]) -> None:
    text = table.markdown(run, {"submit_one": "because.", "sqlite_journal.submit_one": "a reason of its own."})
    behind = text.partition("### Where ours is behind")[2]
    assert "- SQLite as the journal, full (durable): submit_one 0.50×." in behind
    assert "- submit_one, SQLite as the journal: a reason of its own." in behind
    assert "because." not in behind
    assert "Celery" not in behind


def test_publishing_twice_keeps_one_section_and_what_is_around_it(run: dict[str, Any], tmp_path: Path) -> None:
    document = tmp_path / "RESULTS.md"
    document.write_text("# Measured\n\nbefore\n")
    table.publish(run, {}, document)
    document.write_text(document.read_text() + "\nafter\n")
    table.publish(run, {}, document)
    text = document.read_text()
    assert text.count(table.BEGIN) == text.count(table.END) == text.count("## Peers") == 1
    assert text.startswith("# Measured\n\nbefore\n")
    assert text.endswith("\nafter\n")


def test_what_is_added_later_takes_the_place_of_what_was_and_is_told(run: dict[str, Any]) -> None:
    part = {"date": "later", "commit": "1234567", "load": [1.0, 2.0], "cells": {"ours/only": {"noops": [{"per_s": 100.0}]}}}
    later = added(run, part)
    assert figures.cell(later, "celery_redis/always", "noops").ratio == pytest.approx(0.5)
    assert figures.cell(later, "celery_redis/always", "submit_one").ratio == pytest.approx(4.0)
    assert "taken later: noops of 1 rows at later (commit 1234567)" in table.markdown(later, {})


def test_plot_is_well_formed_and_has_a_mark_for_every_ratio(run: dict[str, Any]) -> None:
    picture = ElementTree.fromstring(plot.svg(run))
    marks = [element for element in picture.iter() if element.tag.endswith(("circle", "polygon"))]
    works = [work.name for work in catalog.WORKS if work.name != "crash"]
    names = [name for name, _, _ in figures.rows(run) if name != figures.OURS]
    wanted = sum(figures.cell(run, name, work).ratio is not None for name in names for work in works)
    assert len(marks) == wanted > 3


def test_every_reason_kept_by_hand_is_for_a_work_that_there_is() -> None:
    works = {work.name for work in catalog.WORKS}
    modules = {entry.module for entry in catalog.PEERS}
    for key in table.read_reasons():
        module, _, work = key.rpartition(".")
        assert work in works
        assert not module or module in modules


def test_every_peer_has_its_module_and_what_it_needs_to_be_installed() -> None:
    directory = Path(table.__file__).parent
    here = re.compile("ours|sqlite_journal|task_spooler|gnu_parallel")
    for entry in catalog.PEERS:
        assert (directory / f"{entry.module}.py").exists()
        assert bool(here.fullmatch(entry.module)) != (directory / "requirements" / f"{entry.module}.txt").exists()
