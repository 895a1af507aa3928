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

_API_ERROR = re.compile(r"\[API Error: (?P<message>(?:(?P<status>[45]\d\d)\b)?.*)\]", re.DOTALL)
_SETTINGS = {
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {"enableAutoUpdate": False, "disableAutoUpdate": True, "disableUpdateNag": True},
    # The memory keeper makes a second model call after every answer, for a home that is thrown away.
    "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
}


class QwenAgent(prompt.PromptAgent):
    """Option `approval`: what it may do unasked; `yolo`, everything, unless set: the sandbox is the limit."""

    name: ClassVar[str] = "qwen"
    program: ClassVar[str] = "qwen"

    def launch(self, task: RunTask, home: Path) -> Launch:
        approval = str(task.settings.get("options", {}).get("approval", "yolo"))
        env = {
            **quiet_environment(home),
            **base_environment(home, task.settings),
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
        )

    def read(self, task: RunTask, exit: Exit) -> Outcome:
        result = next((item for item in reversed(prompt.json_lines(exit.stdout)) if item.get("type") == "result"), None)
        if result is None:
            return prompt.unreadable(type(self), exit)
        usage = _usage(result.get("usage"))
        text = str(result.get("result", ""))
        # A refused model call is reported as a success whose text is the error.
        error = _API_ERROR.fullmatch(text.strip())
        if error is not None:
            status = int(error["status"] or 0)
            return Outcome(usage=usage, failure=prompt.refused(type(self), status, error["message"]))
        if result.get("is_error") or exit.code != 0:
            details = result.get("error")
            message = details.get("message", "") if isinstance(details, dict) else text
            return Outcome(usage=usage, failure=prompt.refused(type(self), 0, str(message)))
        return Outcome(output={"text": text}, usage=usage)


def _usage(counts: Any) -> Usage:
    counts = counts if isinstance(counts, dict) else {}
    return Usage(int(counts.get("input_tokens", 0)), int(counts.get("output_tokens", 0)))
