"""`python -m sandbox`: see cli.py."""

import signal
import sys

if __name__ == "__main__":
    # Until a command runs there is nothing to clear up: Ctrl-C ends this process at once, and the fork server sees it go.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sandbox.cli import main

    sys.exit(main())
