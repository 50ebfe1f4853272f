"""Runs `python -m pipeline COMMAND`, or lists the commands."""

import sys

if not __package__:  # run as a file: this folder, first on the path, has an `inspect` that isn't the standard library's
    del sys.path[0]

from schemas.command import main

if __name__ == "__main__":
    sys.exit(main(package="pipeline"))
