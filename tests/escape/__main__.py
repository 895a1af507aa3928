"""The escape attempts in our sandbox and in others', one after the other; see docs/security.md.

python -m tests.escape [--jails ours,bubblewrap] [--families files,network] [--table]
"""

from __future__ import annotations

import argparse
import logging
import sys

import structlog

from tests.escape.attempt import Judged, Verdict
from tests.escape.suite import FAMILIES, OPEN
from tests.escape.table import JAILS, find, markdown, put_into_document


def main() -> int:
    """The number of attempts that ours lets through unexpectedly."""
    families = [*(family.name for family in FAMILIES), "workers"]
    jails = [jail.name for jail in JAILS]
    parser = argparse.ArgumentParser(prog="python -m tests.escape", description=__doc__)
    parser.add_argument("--jails", default="", help=f"of {'; '.join(jails)}; separated by ';' (all)")
    parser.add_argument("--families", default="", help=f"of {', '.join(families)} (all)")
    parser.add_argument("--table", action="store_true", help="write the table into docs/security.md")
    options = parser.parse_args()
    chosen = options.jails.split(";") if options.jails else jails
    wanted = options.families.split(",") if options.families else families
    # What the pools say about the liars is not what is asked here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found = find([jail for jail in JAILS if jail.name in chosen], wanted, lambda text: print(text, file=sys.stderr))
    table = markdown(found, wanted)
    if options.table:
        put_into_document(table)
    else:
        print(table)
    for jail, results in found.items():
        for name, how in results.items():
            if isinstance(how, BaseException):
                notes = "; ".join(getattr(how, "__notes__", ()))
                print(f"{jail}: {name}: not judged: {how} {notes}"[:1500], file=sys.stderr)
    ours = [(name, how) for jail, results in found.items() if jail.startswith("our") for name, how in results.items()]
    return sum(not isinstance(how, Judged) or (how.verdict is Verdict.ESCAPED and name not in OPEN) for name, how in ours)


if __name__ == "__main__":
    sys.exit(main())
