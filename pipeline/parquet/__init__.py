"""python -m pipeline.parquet: a data set's images as Parquet files with a card, as the Hugging Face Hub shows them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from pipeline import storage
from pipeline.reader import check_where
from pipeline.source.origins import ORIGINS
from pipeline.verify import progress
from schemas.command import Parser, at_least, local_path, path_or_url, run_command
from schemas.machine import available_cores

COMMAND = "pipeline.parquet"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(COMMAND, lambda: _export(_parse(sys.argv[1:] if argv is None else argv)))


def _export(arguments: argparse.Namespace) -> int:
    # Arrow and OpenCV take a second to import: --help and a misspelt flag needn't wait for them.
    from pipeline.parquet.write import export

    started = time.monotonic()
    folder, output = arguments.folder.rstrip("/") or "/", arguments.output
    with progress() as advance:
        about = export(folder, output, arguments.origin, arguments.processes, advance("Exporting"), arguments.where)
    held = f"{about.images:,} images in {len(about.files):,} Parquet files, {about.bytes:,} bytes"
    print(f"{output}: {held}, {time.monotonic() - started:,.1f} s")
    if about.origin is None:
        print(
            "  its card says that nobody knows whose handwriting this is; --origin casia, if it is CASIA's, says more"
        )
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        COMMAND,
        "Writes the kept records of a data set as Parquet files with an image column, a README.md and Croissant "
        "metadata: what load_dataset and mlcroissant read, and the Hugging Face Hub shows. Nothing is uploaded.",
        epilog="--s3_endpoint_url=URL and its kin lead to a store that isn't Amazon's: docs/object-storage.md.",
    )
    add = parser.add_argument
    add("folder", type=path_or_url, metavar="DIR", help="the folder of a data set, or its URL")
    add("--output", type=local_path, required=True, metavar="OUT", help="a new folder, or that of an earlier export")
    add(
        "--origin",
        choices=tuple(ORIGINS),
        help="whose handwriting it is, as in convert's --origin (default: what the card of the data set says)",
    )
    add("--where", metavar="CONDITION", help="only its records that fit a condition on the manifest")
    add("--processes", type=int, default=available_cores(), metavar="N", help="default: one a core, here %(default)s")
    arguments = parser.parse_args(storage.take_flags(argv))
    at_least(1, "--processes", arguments.processes)
    if arguments.where is not None:
        check_where(arguments.where)
    return arguments
