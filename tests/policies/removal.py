"""A policy of the core taken out, and the test that notices."""

from __future__ import annotations

from typing import NamedTuple

from tests.support.mutation import Mutation


class Removal(NamedTuple):
    """What the code does without a policy, and what notices: a fast test."""

    mutation: Mutation
    test: str

    @property
    def name(self) -> str:
        return self.mutation.name


def removal(name: str, where: str, old: str, new: str, test: str) -> Removal:
    """Without the policy `name`, `where` (in supervisord_agents.core) has `new` for `old`; `test` is below tests/unit."""
    return Removal(Mutation(name, f"supervisord_agents.core.{where}", old, new), f"tests/unit/{test}")
