"""Runs `python -m model.draw`."""

import sys

from model.draw import main

if __name__ == "__main__":
    sys.exit(main())
