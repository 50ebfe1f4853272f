"""Runs `python -m pipeline.convert`."""

import contextlib
import os
import sys

from pipeline.convert import main

if __name__ == "__main__":
    status = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)  # what Beam has running in the background would take a quarter of a second to end
