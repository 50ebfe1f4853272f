"""Runs `python -m pipeline.convert`."""

import contextlib
import gc
import os
import sys

from pipeline.convert import main

if __name__ == "__main__":
    gc.set_threshold(
        100_000
    )  # what Beam's import makes stays: to look for garbage among it takes a quarter of a second
    status = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)  # what Beam has running in the background would take a quarter of a second to end
