"""The agent `gemini`: Gemini CLI without a terminal. Seen with @google/gemini-cli 0.61.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from supervisord_agents.core.model import Usage
from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agents import prompt
from supervisord_agents.workers.agents.base import Exit, Launch, Outcome
from supervisord_agents.workers.agents.environment import base_environment, quiet_environment
from supervisord_agents.workers.agents.options import Options, parse_options

_SETTINGS = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
}


class GeminiAgent(prompt.PromptAgent):
    """Its answer is a JSON object, written when all is done."""

    name: ClassVar[str] = "gemini"
    options: ClassVar[type[Options]] = prompt.ApprovalOptions
    program: ClassVar[str] = "gemini"

    def launch(self, task: RunTask, home: Path) -> Launch:
        approval = parse_options(task.settings, prompt.ApprovalOptions).approval
        env = {
            **quiet_environment(home),
            **base_environment(home, task),
            "GOOGLE_GEMINI_BASE_URL": prompt.endpoint(task),
            "GEMINI_API_KEY": prompt.PLACEHOLDER_KEY,
            "GEMINI_CLI_NO_RELAUNCH": "1",  # else a second node process with another heap limit
        }
        argv = (prompt.executable(type(self), task), "--skip-trust", "--approval-mode", approval, "--output-format", "json")
        return Launch(
            # Without a model named it first asks one to choose.
            argv=(*argv, "--model", prompt.model(task)),
            env=env,
            cwd=task.workspace,
            stdin=prompt.full_prompt(task),
            files={".gemini/settings.json": json.dumps(_SETTINGS).encode()},
            keep_stdout_tail=True,
        )

    def read(self, task: RunTask, exit: Exit) -> Outcome:
        # The answer is on stdout; an error's JSON comes last on stderr, after warnings and a stack trace.
        answer = _last_object(exit.stdout) or _last_object(exit.stderr)
        if answer is None:
            return prompt.unreadable(type(self), exit)
        usage = _usage(answer.get("stats"))
        error = answer.get("error")
        if isinstance(error, dict):
            return Outcome(usage=usage, failure=prompt.refused(type(self), _status(error), _message(error)))
        if exit.code != 0 or "response" not in answer:
            return prompt.unreadable(type(self), exit)
        return Outcome(output={"text": prompt.text(answer["response"])}, usage=usage)


def _last_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object, of several lines, that ends the output."""
    text = data.decode("utf-8", "replace").rstrip()
    start = text.rfind("\n{") + 1
    if not text[start:].startswith("{"):
        return None
    try:
        found = json.loads(text[start:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _status(error: dict[str, Any]) -> int:
    """The HTTP status; other codes are those of the program's own exit."""
    code = error.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 0


def _message(error: dict[str, Any]) -> str:
    """The provider's message, which comes as JSON in a text."""
    message = str(error.get("message", ""))
    try:
        inner = json.loads(message)
        return str(inner["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return message


def _usage(stats: Any) -> Usage:
    total = Usage()
    for entry in prompt.table(prompt.table(stats).get("models")).values():
        tokens = prompt.table(prompt.table(entry).get("tokens"))
        written = Usage(0, prompt.count(tokens.get("candidates"))) + Usage(0, prompt.count(tokens.get("thoughts")))
        total += Usage(prompt.count(tokens.get("prompt"))) + written
    return total
