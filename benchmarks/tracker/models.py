"""A model of a configuration put to the evaluation set: through the gateway or in its sandbox, as the daemon would ask it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.tracker.evaluation import Score, evaluated
from sandbox.spawner import Spawner
from supervisord_agents.config import Config, parse
from supervisord_agents.daemon.tellers import Tellers
from supervisord_agents.daemon.tracking import settings_of
from supervisord_agents.gateway.server import Gateway

PATIENCE_S = 300.0
COMMON = f"""
[sandbox]
optional_layers = ["cgroup", "landlock", "namespaces"]
[tracker]
deadline_s = {PATIENCE_S}
"""
LOCAL = """
backends = ["local"]
[tracker.local]
model = {model}
threads = {threads}
gpu_layers = {gpu_layers}
profile = {profile}
"""
SERVED = """
backends = ["served"]
[tracker.models.served]
provider = "server"
model = {model}
[gateway.providers.server]
base_url = {url}
"""


def local(model: str, threads: int, gpu_layers: int, profile: str) -> Config:
    """Of a GGUF file."""
    text = LOCAL.format(
        model=json.dumps(os.path.abspath(model)), threads=threads, gpu_layers=gpu_layers, profile=json.dumps(profile)
    )
    return parse(COMMON + text, "--model")


def served(url: str, model: str, key_env: str) -> Config:
    """Of a server of OpenAI's dialect; `key_env` names the variable with its key, if it wants one."""
    key = f"api_key_env = {json.dumps(key_env)}\n" if key_env else ""
    return parse(COMMON + SERVED.format(url=json.dumps(url), model=json.dumps(model)) + key, "--url")


async def scored(config: Config, limit: int) -> Score:
    """The models of `tracker.backends`, none of which is left alone however often it fails."""
    config = msgspec.structs.replace(config, breakers=msgspec.structs.replace(config.breakers, failures=0))
    spawner = Spawner.start(cgroup_name=f"agent-supervisor-evaluation-{os.getpid()}")
    gateway = Gateway(config.gateway, lambda *_: None, lambda *_: None)
    await gateway.start()
    try:
        with tempfile.TemporaryDirectory(prefix="evaluation-") as state:
            return await _scored(Tellers(config, gateway, spawner, Path(state), time.time), config, limit)
    finally:
        await gateway.aclose()
        await spawner.aclose()


async def _scored(tellers: Tellers, config: Config, limit: int) -> Score:
    if tellers.chain is None:
        raise SystemExit("tracker.backends is empty: there is no model to evaluate.")
    tellers.start()
    try:
        return await evaluated(tellers.chain, msgspec.structs.replace(settings_of(config.tracker), every_s=0.0), limit)
    finally:
        await tellers.chain.aclose()
