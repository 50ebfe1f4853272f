"""Runs `python -m pipeline.convert`."""

import gc
import os
import sys

from pipeline.convert import main
from pipeline.convert.direct import Absent

if __name__ == "__main__":
    gc.set_threshold(100_000)  # what is imported stays: Beam's import would look for garbage among it for 0.2 s
    sys.meta_path.insert(0, Absent())
    status = main()  # which has printed all it had to say
    os._exit(status)  # what Beam has running in the background would take a quarter of a second to end
