"""Maps of ids, as texts: each id at most once on either side, never root's uid, only ids that exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.idmap import known, lines

ALL = [(0, 2**32 - 1)]
WORKER = 1_900_000_000


def test_the_owner_becomes_the_worker_and_others_stay_who_they_are() -> None:
    assert lines(1000, WORKER, ALL, without=0).splitlines() == [
        f"1000 {WORKER} 1",
        "1 1 999",
        f"1001 1001 {WORKER - 1001}",
        f"{WORKER + 1} {WORKER + 1} {2**32 - 2 - WORKER}",
    ]


def test_root_as_the_owner_becomes_the_worker_and_nothing_becomes_root() -> None:
    assert lines(0, WORKER, ALL, without=0).splitlines()[0] == f"0 {WORKER} 1"
    assert not [line for line in lines(0, WORKER, ALL, without=0).splitlines()[1:] if line.split()[1] == "0"]


def test_a_group_may_be_the_same_on_both_sides() -> None:
    assert lines(5, 5, [(0, 10)]).splitlines() == ["5 5 1", "0 0 5", "6 6 4"]


def test_only_ids_that_exist_are_mapped() -> None:
    """In a container's user namespace a map with others is refused."""
    assert lines(1000, 70_000, [(0, 1), (1, 65_536)], without=0).splitlines() == ["1000 70000 1", "1 1 999", "1001 1001 64536"]


IDS = st.integers(0, 40)


@given(owner=IDS, worker=st.integers(1, 40), without=st.sampled_from([-1, 0]), first=IDS, count=st.integers(1, 40))
def test_every_id_has_one_place_on_either_side(owner: int, worker: int, without: int, first: int, count: int) -> None:
    rows = [tuple(map(int, row.split())) for row in lines(owner, worker, [(first, count)], without).splitlines()]
    inside = [id for start, _, length in rows for id in range(start, start + length)]
    outside = [id for _, start, length in rows for id in range(start, start + length)]
    assert len(set(inside)) == len(inside)
    assert len(set(outside)) == len(outside)
    shown = dict(zip(inside, outside, strict=True))
    assert shown.pop(owner) == worker
    assert all(id == seen for id, seen in shown.items())
    assert set(shown) == set(range(first, first + count)) - {owner, worker, without}


@pytest.mark.parametrize("name", ["uid_map", "gid_map"])
def test_what_exists_here_is_known(name: str) -> None:
    assert sum(count for _, count in known(name)) > 0
