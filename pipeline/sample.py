"""The embedded default input: `python -m pipeline.sample --output DIR`.

Writes GNT archives that look like CASIA-HWDB1.1 (a file a writer, training writers from 1001, test writers from 1241)
with characters drawn here, so that everything can be tried before the real archives are downloaded.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipeline.drawing.sample_files import MOST_WRITERS, SampleConfig, write_sample
from pipeline.errors import EXIT_USER_ERROR, UserError

_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message}; --help lists every option\n")


def _parse(arguments: Sequence[str] | None) -> SampleConfig:
    parser = _Parser(
        prog="python -m pipeline.sample",
        description="Draw a synthetic handwriting data set as GNT archives: real characters, invented writers.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
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
    parser.add_argument("--zip", action="store_true", help="train.zip and test.zip in place of folders of .gnt files")
    parser.add_argument("--processes", type=int, default=_cores(), help="default: one a core, here %(default)s")
    return SampleConfig(**vars(parser.parse_args(arguments)))


def _cores() -> int:
    # A container's share of the cores, where the system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _next_command(config: SampleConfig, splits: Sequence[str]) -> str:
    suffix = ".zip" if config.zip else ""
    inputs = [part for split in splits for part in ("--input", f"{split}={config.output / (split + suffix)}")]
    # The shards go beside the sample, under a name that even a sample drawn into "." has.
    shards = config.output.parent / f"{config.output.resolve().name}-shards"
    if config.output.name in ("", ".."):
        shards = config.output.resolve().with_name(shards.name)
    command = ["python", "-m", "pipeline.convert", "--runner=DirectRunner", *inputs, "--output", str(shards)]
    return shlex.join(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    start = time.perf_counter()
    try:
        config = _parse(arguments)
        splits = write_sample(config, report=lambda line: print(line, file=sys.stderr, flush=True))
    except UserError as error:
        print(f"pipeline.sample: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:
        print(
            f"pipeline.sample: {error.filename or 'the sample'}: expected to write here, found: "
            f"{error.strerror or error}; choose another --output, and remove what this run has left",
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("pipeline.sample: interrupted; remove the unfinished folder before the next run", file=sys.stderr)
        return _INTERRUPTED
    seconds = time.perf_counter() - start
    files, records, size = (
        sum(getattr(written, name) for written in splits.values()) for name in ("files", "records", "bytes")
    )
    print(f"{config.output}: {files:,} files, {records:,} records, {size:,} bytes in {seconds:.1f} s")
    print(f"next: {_next_command(config, list(splits))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
