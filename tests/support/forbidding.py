"""Start a command on a host that lacks something, by a filter that answers for the kernel: `python -m ... WHAT... -- COMMAND`."""

from __future__ import annotations

import errno
import os
import sys

import pyseccomp

CLONE_NEWUSER = 0x10000000
USER_NAMESPACES, LANDLOCK = "user-namespaces", "landlock"


def main(words: list[str]) -> None:
    separator = words.index("--")
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for what in words[:separator]:
        if what == LANDLOCK:
            rules.add_rule(pyseccomp.ERRNO(errno.EOPNOTSUPP), "landlock_create_ruleset")
        elif what == USER_NAMESPACES:
            for call in ("unshare", "clone"):
                rules.add_rule(
                    pyseccomp.ERRNO(errno.EPERM), call, pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER)
                )
    rules.load()
    os.execvp(words[separator + 1], words[separator + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
