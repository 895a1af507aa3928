"""An agent's own settings: the table `options` of its configuration, in a typed form that knows every key.

A misspelt option, or one of the wrong type, stops the start: it must not be taken for one that was never set.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar

import msgspec

from supervisord_agents.errors import ConfigError

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`(?: - at `\$(.*)`)?")
_WRONG = re.compile(r"(.*) - at `\$\.(.*)`", re.DOTALL)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the forms, one an agent; this one is of an agent that has no options."""


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(settings: dict[str, Any], form: type[OptionsT]) -> OptionsT:
    """The options in an agent's settings; raises ConfigError naming `agents.<name>.options.<key>`."""
    table = f"agents.{settings.get('name') or '<name>'}.options"
    try:
        return msgspec.convert(settings.get("options", {}), form)
    except msgspec.ValidationError as error:
        said = str(error)
        if (unknown := _UNKNOWN.fullmatch(said)) is not None:
            key = unknown[1]
            raise ConfigError(
                "there is no such option.", field=f"{table}{unknown[2] or ''}.{key}", hint=_known(key, form)
            ) from error
        wrong = _WRONG.fullmatch(said)
        message, field = (wrong[1], f"{table}.{wrong[2]}") if wrong else (said, table)
        raise ConfigError(f"{message}.", field=field) from error


def _known(key: str, form: type[Options]) -> str:
    names = form.__struct_fields__
    near = difflib.get_close_matches(key, names, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"It takes: {', '.join(names)}." if names else "This agent takes none."
