"""Which parked children may still be used, and when there are to be more."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import parking as parking_module
from sandbox import plan
from sandbox.child import Child
from sandbox.parking import Parking
from sandbox.plan import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "services").write_text("old")
    (tmp_path / "usr").mkdir()
    return Host({}, (str(tmp_path / "services"), str(tmp_path / "usr")), ())


@pytest.fixture
def child() -> Iterator[Child]:
    """This very process, as if it were a child that waits."""
    ours, theirs = socket.socketpair()
    pidfd = os.pidfd_open(os.getpid())
    with ours, theirs:
        yield Child(os.getpid(), pidfd, None, ours, plan.BARE)
    os.close(pidfd)


def test_the_oldest_is_taken_and_missed(host: Host, child: Child) -> None:
    parking = Parking(host, 1)
    assert parking.due is not None
    parking.put(child)
    assert parking.due is None
    assert parking.take(plan.BARE) is child
    assert parking.take(plan.BARE) is None
    assert parking.due is not None


def test_none_is_wanted_unless_asked_for(host: Host) -> None:
    parking = Parking(host, 0)
    parking.touch()
    assert parking.due is None


def test_one_that_does_not_fit_is_left_for_others(host: Host, child: Child) -> None:
    parking = Parking(host, 1)
    child.made = plan.BARE._replace(links={"/bin": "usr/bin"})
    parking.put(child)
    assert parking.take(plan.BARE) is None
    assert parking.any()


def test_one_that_ends_by_itself_is_replaced_only_when_something_happens(host: Host, child: Child) -> None:
    parking = Parking(host, 1)
    parking.put(child)
    parking.lose(child)
    assert parking.due is None
    parking.touch()
    assert parking.due is not None


def test_all_go_when_a_file_that_they_show_is_replaced(
    host: Host, child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking_module, "LOOK_S", 0.0)
    parking = Parking(host, 1)
    parking.put(child)
    assert parking.outdated() == []
    (tmp_path / "services").write_text("the same file")
    assert parking.outdated() == []
    (tmp_path / "new").write_text("another")
    (tmp_path / "new").rename(tmp_path / "services")
    assert parking.outdated() == [child]
    assert not parking.any()
    assert parking.outdated() == []
    (tmp_path / "services").unlink()
    parking.put(child)
    assert parking.outdated() == [child]
