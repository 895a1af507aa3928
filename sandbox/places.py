"""Which directories of the host a sandbox may be given: not the system's, nobody's home, nothing that holds or lies in a secret.

    refusal("/home/ann/project", ["/run/user/1000"])    # "": fine
    refusal("/home/ann", [])                            # "it is a home directory"

Paths are compared by name alone, and those of the caller must be real ones (os.path.realpath): a look at a directory of somebody
else may hang, or mount it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/gnu",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/nix",
    "/proc",
    "/run",
    "/sbin",
    "/snap",
    "/sys",
    "/usr",
    "/var",
)
"""The system's, with everything in them but ALLOWED (hier(7), file-hierarchy(7))."""
ALLOWED = ("/run/media", "/var/home", "/var/opt", "/var/roothome", "/var/tmp", "/var/www")
"""What lies in these is a person's or a project's: disks put in, homes and temporary files, sites."""
NEVER = ("/dev", "/proc", "/run", "/sys")
"""Windows into the running system: not even to be looked through."""
SHARED = ("/media", "/mnt", "/opt", "/run/media", "/srv", "/tmp", "/var/opt", "/var/tmp", "/var/www")
"""These hold what belongs to many; what lies in them is fine."""
HOMES = ("/home", "/var/home")
ROOTS_HOMES = ("/root", "/var/roothome")
KEYS = (".aws", ".azure", ".docker", ".gnupg", ".kube", ".netrc", ".password-store", ".pki", ".ssh", ".config/gcloud")
"""In a home: not even to be read. Other dot-directories hold programs too, and may be."""
FIRST_PERSON = 1000
"""Accounts below are the system's own (login.defs(5))."""


def refusal(path: str, secrets: Sequence[str], *, writable: bool = True, homes: Iterable[str] | None = None) -> str:
    """Why a directory may not be given to a sandbox, in words that go on after "it"; empty: it may.

    `secrets` are files and directories that no sandbox may reach, such as the socket, the state and the configuration of a
    daemon: neither they, nor what lies in them, nor what holds them. Give a file as itself if what lies beside it is harmless.
    `homes` are home directories; None: those of this host's accounts and of this process.
    """
    if not os.path.isabs(path) or os.path.normpath(path) != path or path.startswith("//"):
        return "is no absolute, normal path"
    known = tuple(dict.fromkeys(_homes() if homes is None else homes))
    checks = (_of_a_secret(path, secrets), _of_the_system(path, known, writable=writable), _of_a_home(path, known, writable))
    return next(filter(None, checks), "")


def _of_a_secret(path: str, secrets: Sequence[str]) -> str:
    for secret in dict.fromkeys(
        real for given in secrets if given for real in (os.path.normpath(given), os.path.realpath(given))
    ):
        if path == secret or _below(path, secret):
            return f"lies in {secret}, which no sandbox may reach" if path != secret else "is what no sandbox may reach"
        if _below(secret, path):
            return f"holds {secret}, which no sandbox may reach"
    return ""


def _of_the_system(path: str, homes: tuple[str, ...], *, writable: bool) -> str:
    if path == "/":
        return "is the whole machine"
    allowed = any(_below(path, place) for place in (*ALLOWED, *(home for home in homes if _below(home, "/var"))))
    if allowed:
        return ""
    system = next((place for place in (SYSTEM if writable else NEVER) if path == place or _below(path, place)), "")
    return f"belongs to the system, by {system}" if system else ""


def _of_a_home(path: str, homes: tuple[str, ...], writable: bool) -> str:
    if path in HOMES:
        return "holds the home directories"
    if path in homes or path in ROOTS_HOMES or os.path.dirname(path) in HOMES:
        return "is a home directory"
    if home := next((home for home in (*HOMES, *ROOTS_HOMES, *homes) if _below(home, path)), ""):
        return f"holds {home}, a home directory"
    if writable and path in SHARED:
        return "is shared by many"
    return _in_a_home(path, homes, writable)


def _in_a_home(path: str, homes: tuple[str, ...], writable: bool) -> str:
    """Settings, keys and start files lie behind a dot: what is written there runs outside, when somebody next logs in."""
    for home in _around(path, homes):
        inner = path[len(home) + 1 :]
        first = inner.split("/")[0]
        if writable and first.startswith("."):
            return f"lies in {home}/{first}, among the settings of a person"
        if any(inner == key or _below(inner, key) or _below(key, inner) for key in KEYS):
            return f"holds keys, in {home}"
    return ""


def _around(path: str, homes: tuple[str, ...]) -> Iterator[str]:
    """The home directories that a path lies in; directories for all count too, where a dot hides sockets of one person."""
    yield from (home for home in (*homes, *ROOTS_HOMES, "/tmp", "/var/tmp") if _below(path, home))
    for root in HOMES:
        if _below(path, root):
            yield f"{root}/{path[len(root) + 1 :].split('/')[0]}"


def _homes() -> Iterator[str]:
    yield from _homes_of_accounts()
    own = os.path.realpath(os.environ.get("HOME", "/"))
    if not _is_the_systems(own):
        yield own


@cache
def _homes_of_accounts() -> tuple[str, ...]:
    """Read once: a directory service may be slow. Homes made later are known by their place in HOMES."""
    found: dict[str, None] = {}
    parents: dict[str, str] = {}
    for account in pwd.getpwall():
        home = os.path.normpath(account.pw_dir)
        person = account.pw_uid >= FIRST_PERSON or account.pw_uid == os.geteuid()
        if not os.path.isabs(home) or _is_the_systems(home) or (not person and _below(home, "/var")):
            continue
        parent, name = os.path.split(home)
        # Not of the home itself, which may be mounted only when it is looked at.
        real = parents.setdefault(parent, os.path.realpath(parent))
        found |= {home: None, os.path.join(real, name): None}
    return tuple(found)


def _is_the_systems(home: str) -> bool:
    """Accounts of services name such places, or none that exists; they are refused for what they are."""
    system = any(home == place or _below(home, place) for place in SYSTEM if place != "/var")
    return system or home in ("/", "/nonexistent", "/var", *SHARED)


def _below(path: str, parent: str) -> bool:
    return path.startswith(f"{parent}/")
