"""`python -m vbjax`: the shell command (cli/main.py)."""

import sys

from vbjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
