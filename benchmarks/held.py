"""Tasks that stay queued: they wait for one that does not end, in a pool of its own."""

from __future__ import annotations

from supervisord_agents.core.model import TaskSpec

BLOCKER = TaskSpec(id="blocker", input={"argv": ["sleep", "3600"]}, timeout_s=3600.0, pool="parked")
CONFIG = """
[pools.standard]
min_workers = {workers}
max_workers = 2
scaling = "on-demand"
[pools.parked]
min_workers = 0
max_workers = 1
[daemon]
log_level = "warning"
"""
"""With the pool of the blocker; `workers` are kept warm in the other."""
