"""The model providers and their keys, checked for `agentctl doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from supervisord_agents.cli.findings import Finding, Mark
from supervisord_agents.config import Config
from supervisord_agents.errors import ConfigError

if TYPE_CHECKING:
    from supervisord_agents.gateway.keys import Key

AREA = "model providers"


def findings(config: Config) -> Iterator[Finding]:
    """One of each provider."""
    for name, provider in config.gateway.providers.items():
        key = key_of(config, name, AREA, name)
        if isinstance(key, Finding):
            yield key
        else:
            yield Finding(AREA, name, Mark.OK, f"{provider.base_url}, {'with' if key else 'without'} a key")


def key_of(config: Config, provider: str, area: str, name: str) -> Key | Finding | None:
    """The key of a provider, or what is wrong with it, as that line; None: it needs none.

    A key in a variable is the daemon's own, so this process may lack it: that is nothing wrong.
    """
    from supervisord_agents.gateway import keys

    settings = config.gateway.providers[provider]
    try:
        return keys.load(provider, settings, os.environ)
    except keys.MissingKey as error:
        mark = Mark.OFF if settings.api_key_env else Mark.MISSING
        return Finding(area, name, mark, str(error), "Set it where the daemon starts.")
    except ConfigError as error:
        return Finding(area, name, Mark.MISSING, error.brief, error.hint)
