"""What the daemon checks before it accepts a task, and what it finds on the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_agents.config import Agent, Config, Gateway, Provider
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import ConfigError, InvalidInput, SandboxRefused
from supervisord_agents.workers.agents import programs
from supervisord_agents.workers.agents.command import CommandAgent
from supervisord_agents.workers.agents.python import PythonAgent
from supervisord_agents.workers.agents.qwen import QwenAgent
from supervisord_agents.workers.agents.registry import AgentRegistry


def command(**given: object) -> TaskSpec:
    return TaskSpec(agent="command", input=given)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "input.argv"),
        ({"argv": "ls"}, "input.argv"),
        ({"argv": []}, "input.argv"),
        ({"argv": [""]}, "input.argv"),
        ({"argv": ["ls", 3]}, "input.argv[1]"),
        ({"argv": ["ls", "a\0b"]}, "input.argv[1]"),
        ({"argv": ["ls"], "env": {"A=B": "c"}}, "input.env.A=B"),
        ({"argv": ["ls"], "env": {"": "c"}}, "input.env."),
        ({"argv": ["ls"], "env": {"A": "c\0"}}, "input.env.A"),
        ({"argv": ["ls"], "env": {"A": 1}}, "input.env[...]"),
        ({"argv": ["ls"], "shell": True}, "input"),
        ({"argv": ["ls"], "stdin": b"x"}, "input.stdin"),
    ],
)
def test_a_command_that_cannot_work_is_refused_naming_the_field(given: dict, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        CommandAgent.check(command(**given), {})
    assert refusal.value.field == field


def test_an_allow_list_of_variables_holds_names_and_patterns() -> None:
    settings = {"name": "mine", "options": {"environment_allow": ["TZ", "LC_*"]}}
    CommandAgent.check(command(argv=["ls"], env={"TZ": "UTC", "LC_ALL": "C"}), settings)
    with pytest.raises(InvalidInput, match="not allowed by the configuration"):
        CommandAgent.check(command(argv=["ls"], env={"LD_PRELOAD": "x"}), settings)


@pytest.mark.parametrize(
    ("options", "field", "says"),
    [
        ({"environment_allow": "LC_*"}, "agents.mine.options.environment_allow", "got `str`"),
        ({"environment_allow": ["TZ", 3]}, "agents.mine.options.environment_allow[1]", "got `int`"),
        ({"environment_alow": ["TZ"]}, "agents.mine.options.environment_alow", "Did you mean `environment_allow`?"),
        ({"shell": True}, "agents.mine.options.shell", "It takes: environment_allow."),
    ],
)
def test_options_that_an_agent_does_not_take_are_refused_when_the_agents_are_set_up(options: dict, field: str, says: str) -> None:
    table = Agent(adapter=f"{CommandAgent.__module__}:{CommandAgent.__qualname__}", options=options)
    with pytest.raises(ConfigError) as refusal:
        AgentRegistry(Config(agents={"mine": table}))
    assert refusal.value.field == field
    assert says in str(refusal.value)


def test_options_are_checked_even_for_a_task_whose_settings_come_from_elsewhere() -> None:
    settings = {"name": "mine", "options": {"environment_allow": "LC_*"}}
    with pytest.raises(ConfigError, match=r"agents\.mine\.options\.environment_allow"):
        CommandAgent.check(command(argv=["ls"], env={"LD_PRELOAD": "x"}), settings)


@pytest.mark.parametrize(("name", "taken"), [("opencode", "takes none"), ("python", "takes: tasks_per_process")])
def test_an_option_that_an_agent_does_not_take_is_refused(name: str, taken: str) -> None:
    with pytest.raises(ConfigError, match=rf"agents\.{name}\.options\.approval.*{taken}"):
        AgentRegistry(Config(agents={name: Agent(options={"approval": "yolo"})}))


@pytest.mark.parametrize("approval", [3, "", "--yolo"])
@pytest.mark.parametrize("name", ["qwen", "gemini"])
def test_an_approval_that_is_no_word_is_refused(name: str, approval: object) -> None:
    AgentRegistry(Config(agents={name: Agent(options={"approval": "auto-edit"})}))
    with pytest.raises(ConfigError) as refusal:
        AgentRegistry(Config(agents={name: Agent(options={"approval": approval})}))
    assert refusal.value.field == f"agents.{name}.options.approval"


def test_options_of_an_agent_that_there_is_not_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"agents\.comand: .*Did you mean `command`\?"):
        AgentRegistry(Config(agents={"comand": Agent(options={"environment_allow": ["TZ"]})}))


@pytest.mark.parametrize("function", ["", "module", "module:", ":name", "a b:c", "os.path", "a:b()", "a..b:c"])
def test_a_function_path_of_another_form_is_refused(function: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        PythonAgent.check(TaskSpec(agent="python", input={"function": function}), {})
    assert refusal.value.field == "input.function"


def test_the_registry_knows_the_installed_agents() -> None:
    registry = AgentRegistry(Config())
    assert {"command", "python", "qwen", "gemini", "opencode"} <= set(registry.names)
    assert registry.get("command") is CommandAgent
    assert registry.get("python").reusable
    assert not registry.get("qwen").reusable


def test_an_unknown_agent_is_refused_with_the_nearest_and_all_known_names() -> None:
    with pytest.raises(InvalidInput, match=r"no agent `comand`.*Did you mean `command`\?.*python"):
        AgentRegistry(Config()).get("comand")


def test_an_agent_can_be_added_by_the_configuration() -> None:
    adapter = f"{CommandAgent.__module__}:{CommandAgent.__qualname__}"
    registry = AgentRegistry(Config(agents={"mine": Agent(adapter=adapter, model="m")}))
    assert registry.get("mine") is CommandAgent
    assert registry.settings("mine")["model"] == "m"


@pytest.mark.parametrize("adapter", ["no.such:Thing", "os:path", "nonsense", "supervisord_agents.workers.agents.base:Agent"])
def test_an_adapter_that_is_none_is_a_configuration_error(adapter: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        AgentRegistry(Config(agents={"mine": Agent(adapter=adapter)})).get("mine")
    assert refusal.value.field == "agents.mine.adapter"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_thing", "no_such_thing"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_an_adapter_whose_module_fails_in_any_way_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    module = f"adapter_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=says) as refusal:
        AgentRegistry(Config(agents={"mine": Agent(adapter=f"{module}:Thing")})).get("mine")
    assert refusal.value.field == "agents.mine.adapter"


def test_an_adapter_whose_options_have_no_form_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"from {CommandAgent.__module__} import CommandAgent\nclass Mine(CommandAgent):\n    options = {{}}\n"
    (tmp_path / "formless.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="`options`"):
        AgentRegistry(Config(agents={"mine": Agent(adapter="formless:Mine")})).get("mine")


def test_an_agent_under_another_name_is_called_by_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    adapter = f"{QwenAgent.__module__}:{QwenAgent.__qualname__}"
    two = Gateway(providers={"a": Provider(base_url="x"), "b": Provider(base_url="y")})
    task = TaskSpec(agent="other", input={"prompt": "p"})

    def refused(**table: str) -> InvalidInput | SandboxRefused:
        registry = AgentRegistry(Config(gateway=two, agents={"other": Agent(adapter=adapter, **table)}))
        with pytest.raises((InvalidInput, SandboxRefused)) as refusal:
            registry.check(task, registry.usable(task.agent))
        return refusal.value

    assert "[agents.other]" in refused().hint
    assert "[agents.other]" in refused(provider="a").hint
    missing = refused(provider="a", model="m")
    assert (missing.field, "`other`" in missing.message, "[agents.other]" in missing.hint) == (
        "agents.other.executable",
        True,
        True,
    )


def test_the_only_provider_is_taken_and_of_several_none_is_guessed() -> None:
    one = Gateway(providers={"a": Provider(base_url="x")})
    two = Gateway(providers={"a": Provider(base_url="x"), "b": Provider(base_url="y")})
    assert AgentRegistry(Config(gateway=one)).settings("qwen")["provider"] == "a"
    assert AgentRegistry(Config(gateway=two)).settings("qwen")["provider"] == ""


def a_program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_missing_cli_is_refused_with_where_it_was_looked_for_and_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    gateway = Gateway(providers={"a": Provider(base_url="x")})
    registry = AgentRegistry(Config(gateway=gateway, agents={"qwen": Agent(model="m")}))
    with pytest.raises(SandboxRefused) as refusal:
        registry.usable("qwen")
    assert "`qwen`" in refusal.value.message
    assert str(tmp_path) in refusal.value.message
    assert refusal.value.field == "agents.qwen.executable"
    assert "executable =" in refusal.value.hint


def test_a_node_cli_shows_its_package_tree_and_the_prefix_of_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = a_program(tmp_path / "app/node_modules/@q/q/cli.js", "#!/usr/bin/env node\n")
    link = tmp_path / "app/node_modules/.bin/qwen"
    link.parent.mkdir()
    link.symlink_to(script)
    node = a_program(tmp_path / "nvm/v20/bin/node")
    monkeypatch.setenv("PATH", f"{link.parent}:{node.parent}")
    settings = AgentRegistry(Config()).settings("qwen")
    assert settings["executable"] == str(script)
    assert settings["search_path"] == [str(node.parent)]
    found = programs.requirements("qwen", "qwen", {**settings, "read_only_paths": ("/srv/extra",)})
    assert found.read_only_paths == (str(tmp_path / "app/node_modules"), str(tmp_path / "nvm/v20"), "/srv/extra")


def test_a_program_that_would_show_a_whole_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tool = a_program(tmp_path / "tool")
    with pytest.raises(SandboxRefused, match="must not see as a whole"):
        programs.requirements("x", "tool", {"executable": str(tool)})


def test_a_program_of_the_system_needs_nothing_shown() -> None:
    true = os.path.realpath("/usr/bin/true")
    assert programs.requirements("x", "true", {"executable": true}).read_only_paths == ()


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("/home/u/bin/tool", "/home/u/bin"),
        ("/srv/tool/bin/tool", "/srv/tool"),
        ("/x/tool", "/x"),
        ("/home/u/.local/bin/tool", "/home/u/.local/bin"),
    ],
)
def test_a_plain_program_shows_its_prefix_but_never_a_whole_home(path: str, tree: str) -> None:
    assert programs.package_tree(path) == tree
