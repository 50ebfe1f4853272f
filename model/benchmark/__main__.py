"""Runs `python -m model.benchmark`."""

import sys

from model.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
