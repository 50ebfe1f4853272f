"""A finished data set read back, here or behind a URL: its card, its manifest, its records in any order"""

from __future__ import annotations

import argparse

from schemas.command import path_or_url

CACHE_BYTES = 32 << 30  # 32 GiB
"""Room on disk for the shards of data sets in stores, where nobody says otherwise."""


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """--data and --cache_bytes, of commands that read a data set wherever it lies."""
    parser.add_argument(
        "--data", type=path_or_url, required=True, metavar="DIR", help="the folder of a data set, or s3://bucket/folder"
    )
    parser.add_argument(
        "--cache_bytes",
        type=int,
        default=CACHE_BYTES,
        metavar="N",
        help=f"room on disk for the shards of a data set in a store (default: {CACHE_BYTES})",
    )


def check_where(text: str) -> None:
    """Raises UserError for a text that is no condition on the manifest; what takes Arrow is imported only then."""
    from pipeline.reader.where import Where

    Where(text)
