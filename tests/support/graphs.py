"""Random graphs."""

from __future__ import annotations

from hypothesis import strategies as st

from supervisord_agents.core.model import Dependency, TaskSpec, When
from tests.support.scheduling import a_task


@st.composite
def graphs(draw: st.DrawFn) -> list[TaskSpec]:
    """A graph in any order; estimates are whole seconds, so that sums are exact."""
    size = draw(st.integers(1, 9))
    specs = []
    for place in range(size):
        befores = draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
        edges = tuple(Dependency(f"t{before}", draw(st.sampled_from([When.ON_SUCCESS, When.ALWAYS]))) for before in befores)
        specs.append(a_task(f"t{place}", *edges, estimate_s=draw(st.integers(1, 9)), priority=draw(st.integers(0, 9))))
    return draw(st.permutations(specs))
