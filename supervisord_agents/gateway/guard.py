"""Who decides whether a provider may be called now, and is told how it answered."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol

MAX_RETRY_AFTER_S = 24 * 3600.0
_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN)
OVERLOADED = 529
"""Of Anthropic's API."""


class Guard(Protocol):
    """The circuit breakers of the providers."""

    def wait_s(self, provider: str) -> float:
        """For how long a call is refused; 0: it may be made."""

    def answered(self, provider: str, failure: str, retry_after_s: float) -> None:
        """A call was answered; `failure` says what was wrong with the provider, empty: nothing."""


class NoGuard:
    """Refuses nothing."""

    def wait_s(self, provider: str) -> float:
        return 0.0

    def answered(self, provider: str, failure: str, retry_after_s: float) -> None:
        pass


def fault_of(status: int) -> str:
    """What an HTTP status says against the provider; empty: it works, whatever it thinks of the request."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return f"it limits the rate ({status})"
    if status in _KEY:
        return f"it refuses the key ({status})"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"it is overloaded ({status})" if status == OVERLOADED else f"it failed ({status})"
    return ""


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float:
    """The seconds that an answer asks to wait for, by `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3); 0: it does not."""
    seconds = 0.0
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            text = headers.get("Retry-After", "").strip()
            if text and text[0].isdigit():
                seconds = float(text)
            elif text:
                seconds = (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else 0.0
