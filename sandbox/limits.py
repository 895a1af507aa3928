"""Which limits of a specification the control groups of this host are to hold."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from sandbox.cgroup import FIELDS
from sandbox.errors import SandboxError
from sandbox.spec import SandboxSpec

WITHOUT_HINT = 'Put "cgroup" into optional_layers (python -m sandbox run: --optional cgroup) to run without. See: agentctl doctor'


def held(spec: SandboxSpec, not_held: Mapping[str, str]) -> dict[str, int]:
    """The fields of cgroup.Limits for a sandbox; `not_held` are the resources that nothing limits here, each with the reason.

    Raises SandboxError for what cannot be held here and is not optional.
    """
    asked = {field: getattr(spec, field) for fields in FIELDS.values() for field in fields if getattr(spec, field)}
    lacking = {name: why for name, why in not_held.items() if asked.keys() & set(FIELDS[name])}
    without = {field: value for field, value in asked.items() if any(field in FIELDS[name] for name in lacking)}
    if lacking and "cgroup" not in spec.optional_layers:
        limits = ", ".join(f"{field} = {value}" for field, value in without.items())
        whys = " ".join(dict.fromkeys(lacking.values()))
        raise SandboxError(f"nothing here can hold {limits}: {whys}", step="cgroup", errno=errno.ENOTSUP, hint=WITHOUT_HINT)
    return {"swap_bytes": spec.swap_bytes, **{field: value for field, value in asked.items() if field not in without}}
