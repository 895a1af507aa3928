"""The agent `opencode`: OpenCode as a worker. Seen with opencode-ai 1.18.33."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from supervisord_agents.core.model import Usage
from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agents import prompt
from supervisord_agents.workers.agents.base import Exit, Launch, Outcome
from supervisord_agents.workers.agents.environment import base_environment, quiet_environment

_CONFIG = ".config/opencode/opencode.json"


class OpenCodeAgent(prompt.PromptAgent):
    """It may do everything unasked: the sandbox is the limit."""

    name: ClassVar[str] = "opencode"
    program: ClassVar[str] = "opencode"

    def launch(self, task: RunTask, home: Path) -> Launch:
        model = prompt.model(task)
        env = {
            **quiet_environment(home),
            **base_environment(home, task),
            "OPENCODE_CONFIG": str(home / _CONFIG),
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_SHARE": "1",
        }
        # A title given saves the model call that would find one.
        argv = (prompt.executable(type(self), task), "run", "--format", "json", "--auto", "--title", task.task)
        return Launch(
            argv=(*argv, "--model", f"gateway/{model}"),
            env=env,
            cwd=task.workspace,
            stdin=prompt.full_prompt(task),
            files={_CONFIG: json.dumps(_config(prompt.endpoint(task), model)).encode()},
            keep_stdout_tail=True,
        )

    def read(self, task: RunTask, exit: Exit) -> Outcome:
        events = prompt.json_lines(exit.stdout)
        usage = Usage()
        texts: list[str] = []
        for event in events:
            part = event.get("part")
            if event.get("type") == "step_finish" and isinstance(part, dict):
                usage += _usage(part)
            elif event.get("type") == "text" and isinstance(part, dict):
                texts.append(prompt.text(part.get("text")))
        error = next((event["error"] for event in reversed(events) if isinstance(event.get("error"), dict)), None)
        if error is not None:
            data = prompt.table(error.get("data"))
            message = prompt.text(data.get("message")) or prompt.text(error.get("name"))
            return Outcome(usage=usage, failure=prompt.refused(type(self), prompt.count(data.get("statusCode")), message))
        if exit.code != 0 or not any(event.get("type") == "step_finish" for event in events):
            return prompt.unreadable(type(self), exit)
        # Texts before the last belong to steps on the way; the last one is the answer.
        return Outcome(output={"text": texts[-1] if texts else ""}, usage=usage)


def _config(base_url: str, model: str) -> dict[str, Any]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "gateway",
        "options": {"baseURL": base_url, "apiKey": prompt.PLACEHOLDER_KEY},
        "models": {model: {"name": model}},
    }
    return {
        "autoupdate": False,
        "share": "disabled",
        "provider": {"gateway": provider},
        "enabled_providers": ["gateway"],
        "model": f"gateway/{model}",
        "small_model": f"gateway/{model}",
    }


def _usage(part: dict[str, Any]) -> Usage:
    tokens = prompt.table(part.get("tokens"))
    cache = prompt.table(tokens.get("cache"))
    total = Usage(cost_usd=prompt.cost(part.get("cost")))
    for read in (tokens.get("input"), cache.get("read"), cache.get("write")):
        total += Usage(input_tokens=prompt.count(read))
    for written in (tokens.get("output"), tokens.get("reasoning")):
        total += Usage(output_tokens=prompt.count(written))
    return total
