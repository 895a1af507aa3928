"""Where `/<provider>/<rest>` leads: the provider's own address, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from yarl import URL

from supervisord_agents import config
from supervisord_agents.errors import ConfigError
from supervisord_agents.gateway import keys
from supervisord_agents.gateway.dialects import AUTH_PARAMETERS, DIALECTS, Dialect

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"v\d+[a-z]*\d*")


class Route:
    """One provider, ready for use: its dialect, its address and its key."""

    def __init__(self, name: str, provider: config.Provider) -> None:
        """Raises ConfigError naming the key at fault."""
        field = f"gateway.providers.{name}"
        if not _NAME.fullmatch(name):
            raise ConfigError("a provider's name is letters, digits, `.`, `_` and `-`: it is part of a path.", field=field)
        if provider.dialect not in DIALECTS:
            known = ", ".join(DIALECTS)
            raise ConfigError(f"unknown dialect: {provider.dialect}.", field=f"{field}.dialect", hint=f"Known: {known}.")
        if min(provider.input_usd_per_mtok, provider.output_usd_per_mtok) < 0:
            raise ConfigError("a price cannot be negative.", field=field)
        self.name = name
        self.provider = provider
        self.dialect: Dialect = DIALECTS[provider.dialect]
        self.key: keys.Key | None = None
        self.missing_key = ""
        """Why there is no key although one is configured."""
        self._base = _base(provider.base_url, f"{field}.base_url")

    def load_key(self, environ: Mapping[str, str]) -> None:
        """Read the key; a missing one is remembered, so that requests can say so. Raises ConfigError."""
        try:
            self.key, self.missing_key = keys.load(self.name, self.provider, environ), ""
        except keys.MissingKey as error:
            self.key, self.missing_key = None, str(error)

    def url(self, rest: str, query: str) -> URL:
        """The upstream address of `/<provider>/<rest>?<query>`, both as they stand on the request line.

        A version that ends the base and begins the rest is written once, so that a base of `…/v1` serves clients that add `/v1`
        and clients that do not. Raises ValueError if the rest would leave the base.
        """
        if any(part in (".", "..") for part in re.split(r"[/\\]", unquote(rest))):
            raise ValueError("the path holds `.` or `..`")
        last = self._base.rsplit("/", 1)[-1]
        first, _, after = rest.partition("/")
        if first == last and _VERSION.fullmatch(last):
            rest = after
        kept = "&".join(part for part in query.split("&") if part and unquote(part.split("=")[0]) not in AUTH_PARAMETERS)
        return URL(f"{self._base}/{rest}" + (f"?{kept}" if kept else ""), encoded=True)

    @property
    def host(self) -> str:
        """The host and port of the provider, for messages."""
        return URL(self._base).authority


def _base(text: str, field: str) -> str:
    try:
        url = URL(text)
        port_is_valid = url.port is not None
    except ValueError:
        raise ConfigError("not a URL.", field=field) from None
    if url.scheme not in ("http", "https") or not url.host or not port_is_valid:
        raise ConfigError("must begin with http:// or https:// and name a host.", field=field)
    if url.user is not None or url.password is not None:
        raise ConfigError("must not hold credentials.", field=field, hint="Use api_key_env or api_key_file.")
    if url.raw_query_string or url.raw_fragment:
        raise ConfigError("must not hold a query or a fragment.", field=field)
    return str(url).rstrip("/")
