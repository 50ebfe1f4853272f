"""Runs `python -m pipeline.convert.workers`."""

import os
import sys

from pipeline.convert.workers import main
from schemas.command import EXIT_INTERRUPTED

if __name__ == "__main__":
    try:
        status = main()  # which has printed all it had to say
    except KeyboardInterrupt:  # once more, while the first was being answered
        status = EXIT_INTERRUPTED
    sys.stdout.flush()
    os._exit(status)  # threads of gRPC's would be waited for
