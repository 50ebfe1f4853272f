"""python -m pipeline.convert: GNT archives in, TFRecord shards and a Parquet manifest out."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
    level = settings.log_level
    with _logged(level) if level else _quiet():
        card = run_conversion(settings, functools.partial(_shown, contextlib.nullcontext if level else _quiet))
    from pipeline.convert.progress import print_summary

    print_summary(card, settings.output, time.monotonic() - started, make_console())
    return 0


@contextlib.contextmanager
def _shown(heard: Callable[[], contextlib.AbstractContextManager[None]], job: Conversion) -> Iterator[None]:
    from pipeline.convert.progress import Meter, shown

    with shown(Meter(job), make_console()), heard():  # once more: a bar shows what is printed beside it
        yield


@contextlib.contextmanager
def _logged(level: str) -> Iterator[None]:
    """What Beam logs, and what its workers send it, goes to stderr from a level on."""
    root, handler = logging.root, logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = root.level
    root.setLevel(level.upper())
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


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
