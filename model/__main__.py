"""Runs `python -m model COMMAND`, or lists the commands."""

import sys

from schemas.command import main

if __name__ == "__main__":
    sys.exit(main(package="model"))
