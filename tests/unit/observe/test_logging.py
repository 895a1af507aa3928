"""Log lines as they reach stderr, from a process of its own: the logging of the test run is left alone."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.errors import ConfigError
from supervisord_agents.observe import logging

START = "import structlog\nfrom supervisord_agents.observe import logging\nlog = structlog.get_logger()\n"


def lines_of(body: str, level: str = "debug", format: str = "journal") -> list[str]:
    """What a process that configures logging and runs `body` writes to stderr."""
    code = f"{START}logging.configure({level!r}, {format!r})\n{body}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_a_journal_line_is_priority_event_and_pairs() -> None:
    assert lines_of("log.info('ready', socket='/run/s', tasks=3)") == ["<6>ready socket=/run/s tasks=3"]


def test_priorities_are_those_of_syslog() -> None:
    body = "for level in ('debug', 'info', 'warning', 'error', 'critical'):\n    getattr(log, level)(level)"
    assert lines_of(body) == ["<7>debug", "<6>info", "<4>warning", "<3>error", "<2>critical"]


def test_lower_levels_are_left_out() -> None:
    body = "import logging as standard\nlog.info('a'); standard.info('b'); log.warning('c'); standard.warning('d')"
    assert lines_of(body, level="warning") == ["<4>c", "<4>d logger=root"]


WRITTEN = [
    ("", '""'),
    ("two words", '"two words"'),
    ("a=b", '"a=b"'),
    ('say "x"', r'"say \"x\""'),
    ("C:\\n", r'"C:\\n"'),
    ("line\n<2>forged", r'"line\n<2>forged"'),
    ("\x1b[2Jcleared", r'"\x1b[2Jcleared"'),
    ("next\x85line\u2028para", r'"next\x85line\u2028para"'),
    ("\u202etxt.exe", r'"\u202etxt.exe"'),
    ("\udce9", r'"\udce9"'),
    ("größer", "größer"),
]


def test_values_stay_on_their_line() -> None:
    values = [value for value, _ in WRITTEN]
    assert lines_of(f"for text in {values!r}:\n    log.info('said', text=text)") == [
        f"<6>said text={text}" for _, text in WRITTEN
    ]


def test_an_event_cannot_pass_for_a_pair() -> None:
    assert lines_of("log.info('task=1 lost\\nx')") == [r'<6>"task=1 lost\nx"']


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    assert logging.escape(text).isprintable()


@given(st.text())
def test_printable_text_is_kept(text: str) -> None:
    assert (logging.escape(text) == text) == text.isprintable()


def test_the_standard_library_goes_the_same_way() -> None:
    body = "import logging as standard\nstandard.getLogger('aiohttp.server').error('bad request %r from %s', 'x', 'me\\nforged')"
    assert lines_of(body) == [r"""<3>"bad request 'x' from me\nforged" logger=aiohttp.server"""]


def test_warnings_are_logged() -> None:
    (line, *_) = lines_of("import warnings\nwarnings.warn('old')")
    assert line.startswith("<4>")
    assert "UserWarning: old" in line


def test_a_traceback_is_marked_on_every_line() -> None:
    first, *rest = lines_of(
        "try:\n    raise ValueError('a\\n<2>forged\\x1b')\nexcept ValueError:\n    log.exception('failed', task=1)"
    )
    assert first == "<3>failed task=1"
    assert all(line.startswith("<3>    | ") for line in rest)
    assert rest[-2:] == ["<3>    | ValueError: a", r"<3>    | <2>forged\x1b"]


def test_a_traceback_of_the_standard_library_is_kept() -> None:
    body = "import logging as standard\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    standard.exception('failed')"
    first, *rest = lines_of(body)
    assert first == "<3>failed logger=root"
    assert rest[-1] == "<3>    | ZeroDivisionError: division by zero"


def test_a_given_exception_needs_not_be_in_flight() -> None:
    lines = lines_of("log.critical('stopping', exc_info=OSError('gone'))")
    assert lines == ["<2>stopping", "<2>    | OSError: gone"]


def test_json_is_one_object_a_line() -> None:
    (line,) = lines_of("log.warning('disk', note='80 %\\nfull', path=__import__('pathlib').Path('/x'))", format="json")
    read = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.pop("timestamp"))
    assert read == {"level": "warning", "event": "disk", "note": "80 %\nfull", "path": "/x"}


def test_a_file_gets_time_and_level_without_colours() -> None:
    (line,) = lines_of("log.warning('disk', free=1)", format="auto")
    assert re.fullmatch(r"\S+Z warning  disk free=1", line)


def test_a_terminal_gets_colours() -> None:
    main, terminal = pty.openpty()
    with os.fdopen(main, "rb") as reader:
        code = f"{START}logging.configure('info', 'auto')\nlog.error('bad')"
        subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True)
        assert re.search(rb"Z \x1b\[31merror   \x1b\[0m bad", reader.readline())
    os.close(terminal)


def test_stderr_connected_to_the_journal_is_recognised() -> None:
    code = f"{START}logging.configure('info', 'auto')\nlog.info('ready')"
    reading, writing = os.pipe()
    status = os.fstat(writing)
    with os.fdopen(reading) as reader:
        for stream in (f"{status.st_dev}:{status.st_ino}", f"{status.st_dev}:{status.st_ino + 1}"):
            environment = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", code], stderr=writing, env=environment, check=True)
        os.close(writing)
        in_journal, elsewhere = reader.read().splitlines()
    assert in_journal == "<6>ready"
    assert re.fullmatch(r"\S+Z info     ready", elsewhere)


@pytest.mark.parametrize(("level", "format", "key"), [("loud", "auto", "log_level"), ("info", "xml", "log_format")])
def test_unknown_settings_are_refused(level: str, format: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"daemon.{key}: unknown"):
        logging.configure(level, format)


def test_last_words_are_an_error_of_one_line() -> None:
    code = "from supervisord_agents.observe import logging\nlogging.last_words('no\\n<2>forged')"
    reading, writing = os.pipe()
    status = os.fstat(writing)
    with os.fdopen(reading) as reader:
        for stream in (f"{status.st_dev}:{status.st_ino}", ""):
            subprocess.run([sys.executable, "-c", code], stderr=writing, env={**os.environ, "JOURNAL_STREAM": stream}, check=True)
        os.close(writing)
        assert reader.read().splitlines() == [r"<3>no\n<2>forged", r"no\n<2>forged"]
