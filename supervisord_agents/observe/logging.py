"""Log lines: structlog and the standard library through one formatter, so that no value can forge a line.

A line is `event key=value …`. In the journal the level goes before it as sd-daemon(3) has it (`<6>`), and there is no timestamp,
because the journal keeps its own; everywhere else a timestamp and the level's name come first.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from supervisord_agents.errors import ConfigError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMATS = ("auto", "journal", "console", "json")
SYSLOG_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
COLOURS = {"critical": "\x1b[1;31m", "error": "\x1b[31m", "warning": "\x1b[33m", "info": "\x1b[32m", "debug": "\x1b[2m"}
END_COLOUR = "\x1b[0m"
CONTINUATION = "    | "
"""Before each line of a traceback: no line of it can pass for a log line."""


def configure(level: str, format: str) -> None:
    """Send all logging of this process to stderr; raises ConfigError for an unknown level or format.

    `auto` is `journal` if stderr is connected to the journal, else `console` (coloured on a terminal).
    """
    if level not in LEVELS:
        raise ConfigError(f"unknown level `{level}`.", field="daemon.log_level", hint=f"One of: {', '.join(LEVELS)}.")
    if format not in FORMATS:
        raise ConfigError(f"unknown format `{format}`.", field="daemon.log_format", hint=f"One of: {', '.join(FORMATS)}.")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _format_traceback,
                _renderer(format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.captureWarnings(True)


def last_words(message: str) -> None:
    """Say why the process cannot go on; works before `configure`."""
    prefix = f"<{SYSLOG_PRIORITY['error']}>" if stderr_is_journal() else ""
    print(prefix + escape(message), file=sys.stderr)  # noqa: T201


def stderr_is_journal() -> bool:
    """True if stderr is the stream that the service manager connected to the journal ($JOURNAL_STREAM in systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def escape(text: str) -> str:
    """The text with all that is not printable written as `\\n`, `\\t`, `\\x1b`, `\\u2028`, …: it stays on its line and sends no
    command to a terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _quoted(text: str) -> str:
    """Bare if that is unambiguous, else in double quotes with backslashes and quotes escaped."""
    if text and text.isprintable() and not any(character in ' ="\\' for character in text):
        return text
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _sentence(text: str) -> str:
    """An event: spaces need no quotes in it, but it must not look like a `key=value`."""
    if text and text.isprintable() and not any(character in '="\\' for character in text):
        return text
    return _quoted(text)


def _renderer(format: str) -> Processor:
    if format == "auto":
        format = "journal" if stderr_is_journal() else "console"
    if format == "journal":
        return _render_journal
    if format == "json":
        return _render_json
    return _render_coloured if sys.stderr.isatty() else _render_plain


def _format_traceback(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by `exception`, a list of lines."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[1] is not None:
        event["exception"] = "".join(traceback.format_exception(*info)).splitlines()
    return event


def _line(event: EventDict) -> tuple[str, list[str]]:
    """The log line, and the lines of its traceback."""
    lines = [CONTINUATION + escape(line) for line in event.pop("exception", ())]
    head = _sentence(str(event.pop("event", "")))
    pairs = [f"{escape(key)}={_quoted(str(value))}" for key, value in event.items()]
    return " ".join([head, *pairs]), lines


def _render_journal(logger: WrappedLogger, method: str, event: EventDict) -> str:
    prefix = f"<{SYSLOG_PRIORITY.get(event.pop('level'), 6)}>"
    line, more = _line(event)
    # Each line of the stream is an entry of its own, so each carries its level.
    return "\n".join(prefix + text for text in (line, *more))


def _render_plain(logger: WrappedLogger, method: str, event: EventDict) -> str:
    level = event.pop("level")
    line, more = _line(event)
    return "\n".join([f"{_now()} {level:<8} {line}", *more])


def _render_coloured(logger: WrappedLogger, method: str, event: EventDict) -> str:
    level = event.pop("level")
    line, more = _line(event)
    return "\n".join([f"{_now()} {COLOURS.get(level, '')}{level:<8}{END_COLOUR} {line}", *more])


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    ordered: dict[str, Any] = {"timestamp": _now(), "level": event.pop("level"), "event": event.pop("event", ""), **event}
    return json.dumps(ordered, default=str)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
