"""The agent `qwen`: Qwen Code without a terminal. Seen with @qwen-code/qwen-code 0.15.10."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

from supervisord_agents.core.model import Usage
from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agents import prompt
from supervisord_agents.workers.agents.base import Exit, Launch, Outcome
from supervisord_agents.workers.agents.environment import base_environment, quiet_environment
from supervisord_agents.workers.agents.options import Options, parse_options

_API_ERROR = re.compile(r"\[API Error: (?P<message>(?:(?P<status>[45]\d\d)\b)?.*)\]", re.DOTALL)
_SETTINGS = {
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {"enableAutoUpdate": False, "disableAutoUpdate": True, "disableUpdateNag": True},
    # The memory keeper makes a second model call after every answer, for a home that is thrown away.
    "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
}


class QwenAgent(prompt.PromptAgent):
    """Its answer is the last line of a stream of JSON."""

    name: ClassVar[str] = "qwen"
    options: ClassVar[type[Options]] = prompt.ApprovalOptions
    program: ClassVar[str] = "qwen"

    def launch(self, task: RunTask, home: Path) -> Launch:
        approval = parse_options(task.settings, prompt.ApprovalOptions).approval
        env = {
            **quiet_environment(home),
            **base_environment(home, task),
            "OPENAI_BASE_URL": prompt.endpoint(task),
            "OPENAI_API_KEY": prompt.PLACEHOLDER_KEY,
            "OPENAI_MODEL": prompt.model(task),
            "QWEN_CODE_NO_RELAUNCH": "1",  # else a second node process with another heap limit
        }
        program = prompt.executable(type(self), task)
        return Launch(
            argv=(program, "--auth-type", "openai", "--approval-mode", approval, "--output-format", "stream-json"),
            env=env,
            cwd=task.workspace,
            stdin=prompt.full_prompt(task),
            files={".qwen/settings.json": json.dumps(_SETTINGS).encode()},
            keep_stdout_tail=True,
        )

    def read(self, task: RunTask, exit: Exit) -> Outcome:
        result = next((item for item in reversed(prompt.json_lines(exit.stdout)) if item.get("type") == "result"), None)
        if result is None:
            return prompt.unreadable(type(self), exit)
        usage = _usage(result.get("usage"))
        text = prompt.text(result.get("result"))
        # A refused model call is reported as a success whose text is the error.
        error = _API_ERROR.fullmatch(text.strip())
        if error is not None:
            status = int(error["status"] or 0)
            return Outcome(usage=usage, failure=prompt.refused(type(self), status, error["message"]))
        if result.get("is_error") or exit.code != 0:
            message = prompt.text(prompt.table(result.get("error")).get("message")) or text
            return Outcome(usage=usage, failure=prompt.refused(type(self), 0, message))
        return Outcome(output={"text": text}, usage=usage)


def _usage(counts: Any) -> Usage:
    counts = prompt.table(counts)
    return Usage(prompt.count(counts.get("input_tokens")), prompt.count(counts.get("output_tokens")))
