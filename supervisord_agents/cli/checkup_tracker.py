"""What the models of the tracker need, checked for `agentctl doctor`."""

from __future__ import annotations

import glob
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sandbox.errors import SandboxError
from supervisord_agents import config as configuration
from supervisord_agents.cli import render
from supervisord_agents.cli.checkup_providers import key_of
from supervisord_agents.cli.findings import Finding, Mark
from supervisord_agents.config import LOCAL, Config, TrackerLocal

AREA = "tracker"
IMPORT_S = 60.0
INSTALL = "Run: pip install 'agent-supervisor[tracker]', with the daemon's Python; for a GPU see docs/tracker.md."
TRIAL = "import supervisord_agents.tracker.llama, llama_cpp; print(llama_cpp.__version__, llama_cpp.llama_supports_gpu_offload())"


def findings(config: Config) -> Iterator[Finding]:
    """Nothing, if no model is configured."""
    for name in config.tracker.backends:
        yield from _local(config) if name == LOCAL else _remote(config, name)


def _local(config: Config) -> Iterator[Finding]:
    local = config.tracker.local
    yield _file(local.model)
    yield _llama(sys.executable, local.gpu_layers)
    yield from _devices(config, local)


def _file(model: str) -> Finding:
    from supervisord_agents.tracker.cell import ModelMissing, parts
    from supervisord_agents.tracker.talk import GGUF

    try:
        files = parts(model)
        with open(files[0], "rb") as file:
            magic = file.read(len(GGUF))
    except ModelMissing as error:
        return Finding(AREA, "model", Mark.MISSING, error.brief, error.hint)
    except OSError as error:
        remedy = "Run the doctor as the user of the daemon, or let everybody read it."
        return Finding(AREA, "model", Mark.MISSING, f"{model} cannot be read: {error.strerror}", remedy)
    if magic != GGUF:
        return Finding(
            AREA, "model", Mark.MISSING, f"{files[0]} is no GGUF file", "Name one in tracker.local.model: docs/tracker.md."
        )
    return Finding(AREA, "model", Mark.OK, f"{files[0]}, {render.size(sum(Path(file).stat().st_size for file in files))}")


def _llama(python: str, gpu_layers: int) -> Finding:
    """Tried in a process of its own, which native code for another processor may kill."""
    command = [python, "-I", "-c", TRIAL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(AREA, "llama_cpp", Mark.MISSING, f"it could not be tried: {error}", INSTALL)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        what = (
            f"its import is ended by signal {-done.returncode}" if done.returncode < 0 else f"it cannot be imported: {last[:200]}"
        )
        return Finding(AREA, "llama_cpp", Mark.MISSING, what, INSTALL)
    version, _, offloads = done.stdout.strip().rpartition(" ")
    if gpu_layers and offloads != "True":
        return Finding(
            AREA, "llama_cpp", Mark.MISSING, f"version {version}, built without a GPU (tracker.local.gpu_layers)", INSTALL
        )
    return Finding(AREA, "llama_cpp", Mark.OK, f"version {version}")


def _devices(config: Config, local: TrackerLocal) -> Iterator[Finding]:
    try:
        profile = configuration.profiles(config).resolve(local.profile).profile
    except SandboxError as error:
        yield Finding(AREA, "profile", Mark.MISSING, str(error))
        return
    for pattern in profile.devices:
        if there := sorted(glob.glob(pattern)):
            yield Finding(AREA, "devices", Mark.OK, ", ".join(there))
        else:
            remedy = "Load the card's driver, or take them out of the profile."
            yield Finding(
                AREA, "devices", Mark.MISSING, f"{pattern}, which profile {local.profile} grants: there are none", remedy
            )
    if local.gpu_layers and not profile.devices:
        remedy = "Name a profile with `devices` in tracker.local.profile, or set tracker.local.gpu_layers to 0."
        yield Finding(AREA, "devices", Mark.MISSING, f"profile {local.profile} grants no GPU", remedy)


def _remote(config: Config, name: str) -> Iterator[Finding]:
    from supervisord_agents.daemon.tellers import dearest

    model = config.tracker.models[name]
    key = key_of(config, model.provider, AREA, name)
    if isinstance(key, Finding):
        yield key
        return
    what, most_usd, limit_usd = f"{model.model} at {model.provider}", dearest(config, name), config.tracker.cost_usd_per_day
    if most_usd > limit_usd:
        remedy = "Raise tracker.cost_usd_per_day, or lower tracker.prompt_tokens."
        yield Finding(AREA, name, Mark.MISSING, f"{what}: an answer may cost ${most_usd:.4f}, a day ${limit_usd:.4f}", remedy)
    elif key and not most_usd:
        remedy = f"Set input_usd_per_mtok and output_usd_per_mtok in [gateway.providers.{model.provider}], if it costs money."
        yield Finding(AREA, name, Mark.OFF, f"{what}: it has no price, so tracker.cost_usd_per_day does not bound it", remedy)
    else:
        yield Finding(AREA, name, Mark.OK, f"{what}, ${most_usd:.4f} an answer at the most" if most_usd else what)
