"""The code, broken on purpose in one place and for a while, so that what should notice can be seen to notice."""

from __future__ import annotations
import __future__ as future

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Mutation(NamedTuple):
    """In `where` (module:function), `old` becomes `new`."""

    name: str
    where: str
    old: str
    new: str


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """The code, broken in that place, whoever has imported it by whatever name."""
    module_name, _, path = mutation.where.partition(":")
    owner: Any = importlib.import_module(module_name)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    function = inspect.getattr_static(owner, name)
    function = inspect.unwrap(getattr(function, "fget", function))
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(mutation.old) == 1, f"{mutation.where} does not say once: {mutation.old}"
    scope: dict[str, Any] = {**function.__globals__, "property": lambda getter: getter}
    broken = source.replace(mutation.old, mutation.new)
    exec(compile(broken, mutation.where, "exec", flags=future.annotations.compiler_flag, dont_inherit=True), scope)
    original = function.__code__
    function.__code__ = inspect.unwrap(scope[name]).__code__
    try:
        yield
    finally:
        function.__code__ = original
