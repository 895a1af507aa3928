"""A coding CLI that talks for longer than is kept: its answer comes last and must not be what is cut."""

from __future__ import annotations

from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.base import KEEP_STDOUT_BYTES
from supervisord_agents.workers.agents.qwen import QwenAgent
from tests.support.runtime_process import RuntimeProcess


def test_the_answer_at_the_end_of_a_huge_output_is_read(worker: RuntimeProcess) -> None:
    script = worker.workspace / "qwen"
    talk = f"head -c {KEEP_STDOUT_BYTES + 1_000_000} /dev/zero | tr '\\0' x; echo"
    answer = """echo '{"type": "result", "result": "the answer", "usage": {"input_tokens": 5, "output_tokens": 2}}'"""
    script.write_text(f"#!/bin/sh\ncat > /dev/null\n{talk}\n{answer}\n")
    script.chmod(0o755)
    end = worker.run(
        agent="qwen",
        agent_class=f"{QwenAgent.__module__}:{QwenAgent.__qualname__}",
        input={"prompt": "talk"},
        settings={"executable": str(script), "provider": "acme", "model": "m"},
        gateway_port=8080,
    )
    assert isinstance(end, frames.TaskResult), end
    assert end.output == {"text": "the answer"}
    assert end.usage.tokens == 7
