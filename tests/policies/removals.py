"""Every policy of the core."""

from __future__ import annotations

from tests.policies import attempts, budgets, durations, families, graphs, order, placement, plans

REMOVALS = [
    *order.REMOVALS,
    *attempts.REMOVALS,
    *budgets.REMOVALS,
    *families.REMOVALS,
    *graphs.REMOVALS,
    *placement.REMOVALS,
    *durations.REMOVALS,
    *plans.REMOVALS,
]
