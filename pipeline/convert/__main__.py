"""Runs `python -m pipeline.convert`."""

import gc
import os
import sys

from pipeline.convert import main
from pipeline.convert.direct import Absent
from schemas.command import EXIT_INTERRUPTED

if __name__ == "__main__":
    gc.set_threshold(100_000)  # what is imported stays: Beam's import would look for garbage among it for 0.2 s
    sys.meta_path.insert(0, Absent())
    try:
        status = main()  # which has printed all it had to say
    except KeyboardInterrupt:  # once more, while the first was being answered
        status = EXIT_INTERRUPTED
    os._exit(status)  # what Beam has running in the background would take a quarter of a second to end
