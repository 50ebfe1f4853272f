"""Runs `python -m pipeline.inspect`."""

import sys

from pipeline.inspect import main

if __name__ == "__main__":
    sys.exit(main())
