"""python -m pipeline.convert: GNT archives in, TFRecord shards and a Parquet manifest out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.convert.lean_imports import lean_imports
from pipeline.convert.options import Arguments, parse_arguments
from pipeline.errors import RESUMES, user_error_in
from schemas.command import EXIT_RUN_LOST, run_command
from schemas.errors import UserError

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

    from pipeline.convert.job import Conversion


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command("pipeline.convert", lambda: convert(parse_arguments(arguments)), resumes=RESUMES)


def convert(arguments: Arguments) -> int:
    """One conversion, from the inputs to the card. Raises UserError for what the user can mend."""
    # Imports stand where they are needed: --help and a misspelt flag don't wait for Arrow, nor a bad input for Beam.
    from pipeline.convert import prefork
    from pipeline.convert.direct import is_direct, may_fork

    if is_direct(arguments.runner) and may_fork(arguments.beam):
        prefork.start()
    from rich.console import Console

    from pipeline import storage
    from pipeline.convert.plan import check_output, plan_conversion
    from pipeline.convert.progress import Meter, shown
    from pipeline.convert.summary import print_summary
    from pipeline.shards import staging
    from pipeline.storage.lock import locked
    from schemas.dataset import CARD, parse_card

    started = time.monotonic()
    job = plan_conversion(arguments)
    run = _prepare(arguments, job)
    console = Console(soft_wrap=True)
    with locked(job.output):
        check_output(job.output)  # another conversion may have finished meanwhile
        meter = Meter(job.staging, job.source_bytes, sum(job.config.num_shards.values()))
        with shown(meter, console):
            run()
        if not arguments.keep_staging:
            staging.clear(job.staging)
    card = parse_card(storage.read_bytes(storage.join(job.output, CARD)).decode(), job.output)
    print_summary(card, job.output, time.monotonic() - started, console)
    return 0


def _prepare(arguments: Arguments, job: Conversion) -> Callable[[], None]:
    """What runs the job on its engine. Raises UserError for Beam's flags where they make no sense."""
    from pipeline.convert.direct import is_direct, plan_local

    local = plan_local(arguments.beam, job.source_bytes)
    _quieten_beam()
    with lean_imports():
        import apache_beam as beam

        from pipeline.convert import transforms
        from pipeline.convert.engines import explain, stop_engines
        from pipeline.convert.runners import make_runner
        from pipeline.storage.lock import unlock

    def end(how: str) -> None:
        """Beam's driver would wait for the lost worker forever."""
        if sys.stdout.isatty():
            print("\r\x1b[2K\x1b[?25h", end="", flush=True)  # the bar's line goes, the cursor comes back
        print(f"pipeline.convert: {how}{RESUMES}", file=sys.__stderr__, flush=True)
        unlock(job.output)
        os._exit(EXIT_RUN_LOST)

    runner, options = make_runner(arguments.runner, arguments.beam, local, end)
    pipeline = beam.Pipeline(runner=runner, options=options)
    transforms.convert(pipeline, job)

    def run() -> None:
        try:
            # Worker threads print every exception that they hand on as well.
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                _finish(pipeline.run())
        except Exception as error:
            message = user_error_in(f"{type(error).__name__}: {error}")
            if message is not None:
                raise UserError(message) from error
            failure = None if is_direct(arguments.runner) else explain(arguments.runner, error)
            if failure is None:
                raise
            raise failure from error
        finally:
            stop_engines()

    return run


def _finish(result: PipelineResult) -> None:
    """Waits for a run. An engine elsewhere would go on with its job when this process has been interrupted."""
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            result.cancel()
        raise


def _quieten_beam() -> None:
    """What goes wrong reaches the user as an exception; Beam's warnings on a good run are noise."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(level=logging.CRITICAL)
    logging.getLogger().setLevel(logging.CRITICAL)
