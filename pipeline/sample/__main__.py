"""Runs `python -m pipeline.sample`."""

import sys

from pipeline.sample import main

if __name__ == "__main__":
    sys.exit(main())
