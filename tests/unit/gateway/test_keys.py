"""Keys are read carefully and shown to nobody."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.config import Provider
from supervisord_agents.errors import ConfigError
from supervisord_agents.gateway.keys import Key, MissingKey, Redactor, load


def a_provider(**values: str) -> Provider:
    return Provider(base_url="http://127.0.0.1", **values)


def a_key_file(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_key_comes_from_the_environment() -> None:
    key = load("p", a_provider(api_key_env="K"), {"K": " sk-1 \n"})
    assert key is not None
    assert key.reveal() == "sk-1"


def test_a_key_comes_from_a_private_file(tmp_path: Path) -> None:
    key = load("p", a_provider(api_key_file=a_key_file(tmp_path, "sk-1\n")), {})
    assert key is not None
    assert key.reveal() == "sk-1"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.providers\.p\.api_key_file: .*mode.*chmod 600"):
        load("p", a_provider(api_key_file=a_key_file(tmp_path, "sk-1", mode)), {})


def test_a_missing_key_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingKey, match="no K "):
        load("p", a_provider(api_key_env="K"), {})
    with pytest.raises(MissingKey, match=r"nowhere cannot be read: No such file"):
        load("p", a_provider(api_key_file=str(tmp_path / "nowhere")), {})
    with pytest.raises(MissingKey, match="is empty"):
        load("p", a_provider(api_key_file=a_key_file(tmp_path, "\n")), {})


def test_a_provider_may_need_no_key() -> None:
    assert load("p", a_provider(), {}) is None


def test_two_sources_of_a_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="both"):
        load("p", a_provider(api_key_env="K", api_key_file="/k"), {"K": "x"})


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "two words", "käse", "a\x00b"])
def test_a_key_that_could_not_stand_in_a_header_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("p", a_provider(api_key_env="K"), {"K": text})
    assert text not in str(caught.value)


def test_a_directory_or_a_huge_file_is_no_key(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, MissingKey)):
        load("p", a_provider(api_key_file=str(tmp_path)), {})
    with pytest.raises(ConfigError, match="not a key"):
        load("p", a_provider(api_key_file=a_key_file(tmp_path, "x" * 20_000)), {})


def test_a_named_pipe_is_no_key_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        load("p", a_provider(api_key_file=str(path)), {})


def test_a_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_key_file(tmp_path, "sk-1")
    real = os.fstat

    def owned_by_another(descriptor: int) -> os.stat_result:
        status = list(real(descriptor))
        status[stat.ST_UID] = os.geteuid() + 1
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", owned_by_another)
    with pytest.raises(ConfigError, match=rf"belongs to uid {os.geteuid() + 1}.*chown"):
        load("p", a_provider(api_key_file=path), {})


def test_a_key_does_not_show_itself() -> None:
    key = Key("sk-1")
    assert "sk-1" not in f"{key!r} {key} {[key]}"


@given(
    before=st.binary(max_size=20),
    after=st.text(alphabet="sk-", max_size=12).map(str.encode),
    places=st.lists(st.integers(min_value=0, max_value=60), max_size=6),
)
def test_a_key_is_struck_out_however_the_stream_is_cut(before: bytes, after: bytes, places: list[int]) -> None:
    secret = "sk-sks"
    data = before + secret.encode() + after + secret.encode()
    redactor = Redactor(Key(secret))
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = [redactor.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    out = b"".join([*pieces, redactor.finish()])
    assert secret.encode() not in out
    assert len(out) == len(data)


def test_only_what_may_be_the_beginning_of_the_key_is_held_back() -> None:
    redactor = Redactor(Key("sk-12345"))
    assert redactor.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert redactor.feed(b"see sk-12") == b"see "
    assert redactor.feed(b"9") == b"sk-129"
    assert redactor.finish() == b""
