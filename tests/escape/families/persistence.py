"""What runs outside later: hooks and settings in a workspace, and start files in a home directory."""

from __future__ import annotations

from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, Verdict, reached
from tests.escape.host import Host

family = Family("persistence")
BEFORE = "# as the user left it\n"
PLANTED = "# planted by the sandbox"

WRITE = """
for path in words["paths"]:
    def plant():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return write(path, words["text"])
    trying(path, plant)
    def replace():
        write(path + ".new", words["text"])
        os.rename(path + ".new", path)
    trying("replace " + path, replace)
    trying("remove " + path, os.unlink, path)
    trying("again " + path, write, path, words["text"])
"""


def _planted(host: Host, *names: str, top: Path | None = None) -> Course:
    paths = [(top or host.workspace) / name for name in names]
    for path in paths:
        host.file(path, BEFORE)
    outcome = yield {"paths": [str(path) if top else name for path, name in zip(paths, names, strict=True)], "text": PLANTED}
    changed = [name for path, name in zip(paths, names, strict=True) if not path.exists() or path.read_text() != BEFORE]
    return Judged(Verdict.ESCAPED, ", ".join(changed)) if changed else reached(outcome, False)


@family.attempt(WRITE)
def git_hooks(host: Host) -> Course:
    """Changes .git/hooks/pre-commit, which the user's next commit runs."""
    return (yield from _planted(host, ".git/hooks/pre-commit"))


@family.attempt(WRITE)
def git_configuration(host: Host) -> Course:
    """Changes .git/config, whose fsmonitor and aliases are run."""
    return (yield from _planted(host, ".git/config"))


@family.attempt(
    """
def whole():
    os.rename(".git", ".git-was")
    os.makedirs(".git/hooks")
    return write(".git/hooks/post-checkout", words["text"])
trying("whole", whole)
def hooks():
    os.rename(".git/hooks", ".git/hooks-was")
    os.mkdir(".git/hooks")
    return write(".git/hooks/post-checkout", words["text"])
trying("hooks", hooks)
""",
    alone=True,
)
def git_directory_replaced(host: Host) -> Course:
    """Moves .git or its hooks away, and puts others in their place."""
    host.file(host.workspace / ".git" / "hooks" / "pre-commit", BEFORE)
    host.file(host.workspace / ".git" / "config", BEFORE)
    outcome = yield {"text": PLANTED}
    return reached(outcome, (host.workspace / ".git" / "hooks" / "post-checkout").exists())


@family.attempt(
    """
trying("through", write, "elsewhere/post-merge", words["text"])
trying("link", write, ".git/hooks/post-merge", words["text"])
""",
    alone=True,
)
def git_hooks_behind_a_link(host: Host) -> Course:
    """Changes hooks whose directory is a link to another in the workspace."""
    host.file(host.workspace / "elsewhere" / "pre-commit", BEFORE)
    host.file(host.workspace / ".git" / "config", BEFORE)
    (host.workspace / ".git" / "hooks").symlink_to("../elsewhere")
    outcome = yield {"text": PLANTED}
    return reached(outcome, (host.workspace / "elsewhere" / "post-merge").exists())


@family.attempt(WRITE)
def shell_start_files(host: Host) -> Course:
    """Changes .bashrc, .zshrc and .profile of a workspace."""
    return (yield from _planted(host, ".bashrc", ".zshrc", ".profile"))


@family.attempt(WRITE)
def directory_environment(host: Host) -> Course:
    """Changes .envrc, which direnv runs for who enters the directory."""
    return (yield from _planted(host, ".envrc"))


@family.attempt(WRITE)
def editor_settings(host: Host) -> Course:
    """Changes .vscode/tasks.json, .vscode/settings.json and .idea, whose tasks editors run."""
    return (yield from _planted(host, ".vscode/tasks.json", ".vscode/settings.json", ".idea/workspace.xml"))


@family.attempt(WRITE)
def agent_settings(host: Host) -> Course:
    """Changes the settings of agents: .claude/settings.json, .cursor/mcp.json."""
    return (yield from _planted(host, ".claude/settings.json", ".cursor/mcp.json"))


@family.attempt(WRITE)
def agent_tools(host: Host) -> Course:
    """Changes .mcp.json, whose programs agents start."""
    return (yield from _planted(host, ".mcp.json"))


@family.attempt(WRITE)
def continuous_integration(host: Host) -> Course:
    """Changes .github/workflows and .gitlab-ci.yml, which run with the project's keys."""
    return (yield from _planted(host, ".github/workflows/ci.yml", ".gitlab-ci.yml"))


@family.attempt(WRITE)
def home_start_files(host: Host) -> Course:
    """Changes start files, programs, units and keys in the home directory."""
    # Names that the account of a peer does not have already.
    names = (
        ".bash_login",
        ".zprofile",
        ".local/bin/ls",
        ".config/systemd/user/escape.service",
        ".ssh/authorized_keys",
        ".gitconfig",
    )
    return (yield from _planted(host, *names, top=host.home))


@family.attempt("""
for path in words["paths"]:
    trying(path, write, path, "* * * * * root true\\n")
""")
def system_start_files(host: Host) -> Course:
    """Adds a cron job, a service, a profile script and a preloaded library to the system."""
    paths = ["/etc/cron.d/escape", "/etc/systemd/system/escape.service", "/etc/profile.d/escape.sh", "/etc/ld.so.preload"]
    there = [path for path in paths if Path(path).exists()]
    outcome = yield {"paths": [path for path in paths if path not in there]}
    made = [path for path in paths if Path(path).exists() and path not in there]
    for path in made:
        Path(path).unlink()
    return reached(outcome, bool(made))
