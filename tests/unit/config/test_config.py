"""The configuration: the shipped file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisord_agents import config
from supervisord_agents.config import Config
from supervisord_agents.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def test_the_shipped_file_shows_the_defaults() -> None:
    assert config.load(ROOT / "config.toml") == Config()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[daemon]\nstate_dri = 'x'", "unknown key `daemon.state_dri`. Did you mean `state_dir`?"),
        ("[deamon]\n", "unknown key `deamon`. Did you mean `daemon`?"),
        ("[pools.fast]\nmax_worker = 3", "unknown key `pools.fast.max_worker`. Did you mean `max_workers`?"),
        ("[pools.fast]\nmax_workers = 'many'", "$.pools[...].max_workers"),
        ("[pools.fast]\nmin_workers = 3\nmax_workers = 2", "`pools.fast` needs 0 <= min_workers <= max_workers"),
        ("[agents.qwen]\nprovider = 'nowhere'", "`agents.qwen.provider` names a provider that is not configured: nowhere"),
        ("[agents.qwen]\npool = 'nowhere'", "`agents.qwen.pool` names a pool that is not configured: nowhere"),
        ("[sandbox]\nuid_first = 0", "`sandbox.uid_first` must be at least 1000"),
        ("[daemon\n", "not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_and_the_key_is_named(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "my.toml")
    assert says in str(caught.value)
    assert caught.value.field == "my.toml"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        config.load(tmp_path / "none.toml")
    assert caught.value.field.endswith("none.toml")
