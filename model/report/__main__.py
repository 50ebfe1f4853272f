"""Runs `python -m model.report`."""

import sys

from model.report import main

if __name__ == "__main__":
    sys.exit(main())
