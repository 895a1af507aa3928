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
        ("[pools.fast]\nmin_workers = 3\nmax_workers = 2", "`pools.fast` has more min_workers than max_workers"),
        ("[agents.qwen]\nprovider = 'nowhere'", "`agents.qwen.provider` names a provider that is not configured: nowhere"),
        ("[agents.qwen]\npool = 'nowhere'", "`agents.qwen.pool` names a pool that is not configured: nowhere"),
        ("[sandbox]\nuid_first = 0", "$.sandbox.uid_first"),
        ("[sandbox]\nuid_count = 0", "$.sandbox.uid_count"),
        ("[sandbox]\nuid_first = 2147483000", "`sandbox.uid_count` leads beyond"),
        ("[sandbox]\noptional_layers = ['cgruop']", "$.sandbox.optional_layers[0]"),
        ("[sandbox]\nmemory_bytes = 1", "`sandbox.memory_bytes` is a key of profiles now. Write it into a table [profiles.mine]"),
        ("[sandbox]\nread_only_paths = ['/opt']", "`sandbox.read_only_paths` is a key of profiles now."),
        ("[sandbox]\nprofile = 'agnet'", "`sandbox.profile`: no profile agnet. Did you mean agent?"),
        ("[sandbox]\nprofile = 'mine.toml'", "`sandbox.profile` must be absolute, not mine.toml"),
        ("[sandbox]\ntask_profiles = ['nosuch']", "`sandbox.task_profiles`: no profile nosuch."),
        ("[agents.qwen]\nprofile = 'nosuch'", "`agents.qwen.profile`: no profile nosuch."),
        ("[profiles.mine]\npidz = 1", "my.toml: profiles.mine: unknown key `pidz`. Did you mean `pids`?"),
        ("[profiles.mine]\nextends = 'mine'", "my.toml: profiles.mine: `extends`: leads in a circle: mine extends mine."),
        ("[profiles.agent]\npids = 1", "my.toml: profiles.agent: agent is a built-in profile"),
        ("[profiles.mine]\nmasked = ['x']", "my.toml: profiles.mine: `masked`: 'x' is no absolute, normal path."),
        ("[daemon]\nlog_level = 'loud'", "$.daemon.log_level"),
        ("[daemon]\nmax_clients = 0", "$.daemon.max_clients"),
        ("[daemon]\nmax_frame_bytes = 1", "$.daemon.max_frame_bytes"),
        ("[daemon]\norphan_grace_s = nan", "$.daemon.orphan_grace_s"),
        ("[daemon]\nsocket = 'here.sock'", "`daemon.socket` must be absolute"),
        ("[journal]\nreserve_bytes = 0", "$.journal.reserve_bytes"),
        ("[journal]\nsegment_bytes = -5", "$.journal.segment_bytes"),
        ("[journal]\nsnapshot_every_records = 0", "$.journal.snapshot_every_records"),
        ("[journal]\ndisk_warning_percent = 500", "$.journal.disk_warning_percent"),
        ("[tasks]\ntimeout_s = -1", "$.tasks.timeout_s"),
        ("[tasks]\ntimeouts_s = { review = 0 }", "$.tasks.timeouts_s[...]"),
        ("[tasks]\nbackoff_s = inf", "$.tasks.backoff_s"),
        ("[tasks]\noutput_limit_bytes = -1", "$.tasks.output_limit_bytes"),
        ("[pools.fast]\nidle_s = -1", "$.pools[...].idle_s"),
        ("[gateway]\nallowed_hosts = ['*.com']", "`gateway.allowed_hosts`: `*.com` would allow a whole top-level domain"),
        ("[agents.qwen]\nhosts = ['10.0.0.1']", "`agents.qwen.hosts`: `10.0.0.1` is not a host name"),
        (f"[agents.x]\nhosts = {[f'a.org:{port}' for port in range(1, 18)]}", "`agents.x.hosts`: more than 16 different ports"),
        ("[gateway]\nport = 70000", "$.gateway.port"),
        ("[gateway.providers.x]\nbase_url = 'nope'", "$.gateway.providers[...].base_url"),
        ("[gateway.providers.x]\nbase_url = 'https://h'\ndialect = 'foo'", "$.gateway.providers[...].dialect"),
        ("[tracker]\nbackends = ['mini']", "`tracker.backends` names no table of tracker.models: mini"),
        ("[tracker]\nbackends = ['local']", "`tracker.local.model` must name a GGUF file"),
        ("[tracker]\nbackends = ['local', 'local']\nlocal.model = '/m.gguf'", "`tracker.backends` names one twice"),
        ("[tracker.local]\nmodel = 'm.gguf'", "`tracker.local.model` must be absolute"),
        ("[tracker.local]\nprofile = 'gqu'", "`tracker.local.profile`: no profile gqu."),
        (
            "[tracker.models.mini]\nprovider = 'x'\nmodel = 'm'",
            "`tracker.models.mini.provider` names a provider that is not configured: x",
        ),
        ("[tracker.models.local]\nprovider = 'x'\nmodel = 'm'", "`tracker.models.local` must have another name"),
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
