"""python -m pipeline.convert: GNT archives in, TFRecord shards and a Parquet manifest out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.convert.options import Settings, parse_arguments
from schemas.command import make_console, run_command
from schemas.errors import RESUMES

if TYPE_CHECKING:
    from pipeline.convert.plan import Conversion


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command("pipeline.convert", lambda: _convert(parse_arguments(arguments)), resumes=RESUMES)


def _convert(settings: Settings) -> int:
    from pipeline.convert.run import run_conversion

    started = time.monotonic()
    with _quiet():
        card = run_conversion(settings, _shown)
    from pipeline.convert.progress import print_summary

    print_summary(card, settings.output, time.monotonic() - started, make_console())
    return 0


@contextlib.contextmanager
def _shown(job: Conversion) -> Iterator[None]:
    from pipeline.convert.progress import Meter, shown

    with shown(Meter(job), make_console()), _quiet():  # once more: a bar shows what is printed beside it
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong reaches the user as an exception; what Beam and its threads print beside it is noise."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # Left open: some of Beam's threads print when all is over.
        with contextlib.redirect_stderr(open(os.devnull, "w")):
            yield
    finally:
        logging.disable(before)
