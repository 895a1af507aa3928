"""Every attempt in our sandbox, made by root and by an ordinary user; and without one, where they must succeed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.escape.attempt import Attempt, Judged, Verdict
from tests.escape.families import files, network, persistence, processes, sharing, sockets, workers
from tests.escape.jails import OURS, Jail, Nothing, Ours
from tests.escape.running import run
from tests.escape.suite import ATTEMPTS, FAMILIES, OPEN
from tests.escape.table import DOCUMENT, KNOWN

JAILS: dict[str, Jail] = {jail.name: jail for jail in OURS}


@cache
def judged(jail: str, family: str) -> Mapping[str, Judged | BaseException]:
    """Those of a family that may share a sandbox do."""
    (found,) = (one for one in FAMILIES if one.name == family)
    return run(JAILS[jail], found.attempts)


def params() -> list[object]:
    return [
        pytest.param(
            jail, attempt, id=f"{attempt.family}-{attempt.name}-{jail.replace(', as a ', '-as-')}", marks=_marks(attempt)
        )
        for jail in JAILS
        for attempt in ATTEMPTS
    ]


def _marks(attempt: Attempt) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(reason=OPEN[attempt.name], strict=True)] if attempt.name in OPEN else []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("jail", "attempt"), params())
def test_ours_lets_nothing_through(jail: str, attempt: Attempt) -> None:
    if why := JAILS[jail].missing():
        pytest.skip(why)
    found = judged(jail, attempt.family)[attempt.name]
    if isinstance(found, BaseException):
        raise found
    if found.verdict is Verdict.NOT_APPLICABLE:
        pytest.skip(found.why)
    assert found.verdict in (Verdict.BLOCKED, Verdict.CONTAINED), found.why


@pytest.mark.parametrize("attempt", workers.ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_a_lying_worker_reaches_nothing_but_its_own_task(attempt: workers.WorkerAttempt, tmp_path: Path) -> None:
    found = await attempt.run(tmp_path)
    assert found.verdict in (Verdict.BLOCKED, Verdict.CONTAINED), found.why


HARMLESS = (files, network, persistence, processes, sharing, sockets)
"""Families whose attempts may be made on the host itself: all that they can hurt is planted by the test."""
HELD_BY_THE_KERNEL = {
    "shadow", "block-devices", "kernel-memory", "kernel-log", "kernel-settings", "device-settings", "file-by-handle",
    "trace-inside", "kill-the-first-process", "outlive-the-sandbox", "favours-of-the-scheduler", "docker-socket",
    "system-bus", "hypervisor-socket", "packet-socket", "crypto-socket", "odd-families", "netlink",
    "loopback-service-by-ipv6", "raw-socket", "change-the-interfaces", "metadata-address", "address-outside",
    "ping-and-broadcast", "fast-open", "multipath", "service-on-the-hosts-address", "system-start-files",
}  # fmt: skip
"""Refused to an ordinary user anyway, or dependent on what this host has."""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("family", HARMLESS, ids=lambda module: module.family.name)
def test_without_a_sandbox_they_succeed(family: object) -> None:
    """Else the suite would say nothing."""
    attempts = [one for one in family.family.attempts if not one.mounts and one.name not in HELD_BY_THE_KERNEL]  # type: ignore[attr-defined]
    found = run(Nothing(), attempts)
    verdicts = {name: how.verdict if isinstance(how, Judged) else how for name, how in found.items()}
    assert verdicts == dict.fromkeys(verdicts, Verdict.ESCAPED)


def test_the_document_has_a_row_for_each() -> None:
    rows = {
        line.split("|")[1].strip().removesuffix(KNOWN.strip()).strip()
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("|")
    }
    missing = {one.tells for one in (*ATTEMPTS, *workers.ATTEMPTS)} - rows
    assert not missing, "make escape-table"


def test_what_is_known_to_be_open_is_an_attempt() -> None:
    names = {attempt.name for attempt in ATTEMPTS}
    assert set(OPEN) <= names
    assert len(names) == len(ATTEMPTS), "names are the rows of the table"
    assert len(names) + len(workers.ATTEMPTS) >= 80
    assert isinstance(OURS[0], Ours)
