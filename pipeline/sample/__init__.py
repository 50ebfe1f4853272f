"""The embedded default input: `python -m pipeline.sample --output DIR`.

Writes GNT archives that look like CASIA-HWDB1.1 (a file a writer, training writers from 1001, test writers from 1241)
with characters drawn here, so that everything can be tried before the real archives are downloaded.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence

from pipeline.sample.files import MOST_WRITERS, SampleConfig, write_sample
from schemas.command import Parser, local_path, run_command
from schemas.errors import explained
from schemas.machine import available_cores


def _parse(arguments: Sequence[str] | None) -> SampleConfig:
    parser = Parser(
        "pipeline.sample",
        "Draw a synthetic handwriting data set as GNT archives: real characters, invented writers.",
    )
    parser.add_argument("--output", type=local_path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--writers", type=int, default=12, help=f"1 to {MOST_WRITERS}; a fifth of them for testing (default: 12)"
    )
    parser.add_argument(
        "--characters",
        type=int,
        default=3755,
        help="1 to 3755: how many characters of GB2312 level 1 each writer writes, besides symbols (default: all 3755)",
    )
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same bytes (default: 7)")
    parser.add_argument(
        "--font",
        type=local_path,
        action="append",
        default=[],
        metavar="FILE",
        help="a font whose strokes writers learn, in place of the font package's; may be given more than once",
    )
    parser.add_argument(
        "--strokes",
        type=local_path,
        metavar="DIR",
        help="strokes in the order of writing, as the npm package hanzi-writer-data has them: half of the "
        "writers learn these",
    )
    parser.add_argument("--zip", action="store_true", help="train.zip and test.zip in place of folders of .gnt files")
    parser.add_argument(
        "--processes", type=int, default=available_cores(), help="default: one a core, here %(default)s"
    )
    return SampleConfig(**vars(parser.parse_args(arguments)))


def _next_command(config: SampleConfig, splits: Sequence[str]) -> str:
    suffix = ".zip" if config.zip else ""
    inputs = [part for split in splits for part in ("--input", f"{split}={config.output / (split + suffix)}")]
    # The shards go beside the sample, under a name that even a sample drawn into "." has.
    shards = config.output.parent / f"{config.output.resolve().name}-shards"
    if config.output.name in ("", ".."):
        shards = config.output.resolve().with_name(shards.name)
    command = ["python", "-m", "pipeline.convert", "--runner=DirectRunner", *inputs, "--output", str(shards)]
    return shlex.join(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command("pipeline.sample", lambda: _sample(_parse(argv)))


def _sample(config: SampleConfig) -> int:
    start = time.perf_counter()
    with explained(f"write {config.output}"):
        splits = write_sample(config, report=lambda line: print(line, file=sys.stderr, flush=True))
    seconds = time.perf_counter() - start
    files, records, size = (
        sum(getattr(written, name) for written in splits.values()) for name in ("files", "records", "bytes")
    )
    print(f"{config.output}: {files:,} files, {records:,} records, {size:,} bytes in {seconds:.1f} s")
    print(f"next: {_next_command(config, list(splits))}")
    return 0
