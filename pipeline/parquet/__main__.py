"""Runs `python -m pipeline.parquet`."""

import sys

from pipeline.parquet import main

if __name__ == "__main__":
    sys.exit(main())
