"""Runs `python -m pipeline.verify`."""

import sys

from pipeline.verify import main

if __name__ == "__main__":
    sys.exit(main())
