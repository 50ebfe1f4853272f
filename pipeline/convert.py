"""python -m pipeline.convert: GNT archives in, TFRecord shards and a Parquet manifest out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import EXIT_USER_ERROR, EngineError, UserError, user_error_in
from pipeline.lean_imports import lean_imports
from pipeline.options import Arguments, parse_arguments

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

    from pipeline.job import Conversion

EXIT_RUN_LOST = 1
EXIT_INTERRUPTED = 130
_RESUMES = "the same command goes on from where it stopped"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        convert(parse_arguments(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"pipeline.convert: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except EngineError as error:
        print(f"pipeline.convert: {error}; {_RESUMES}", file=sys.stderr)
        return EXIT_RUN_LOST
    except KeyboardInterrupt:
        print(f"pipeline.convert: interrupted; {_RESUMES}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def convert(arguments: Arguments) -> None:
    """One conversion, from the inputs to the card. Raises UserError for what the user can mend."""
    # Imports stand where they are needed: --help and a misspelt flag don't wait for Arrow, nor a bad input for Beam.
    from pipeline import prefork
    from pipeline.direct import is_direct, may_fork

    if is_direct(arguments.runner) and may_fork(arguments.beam):
        prefork.start()
    from rich.console import Console

    from pipeline import staging, storage
    from pipeline.lock import locked
    from pipeline.plan import check_output, plan_conversion
    from pipeline.progress import Meter, shown
    from pipeline.summary import print_summary
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


def _prepare(arguments: Arguments, job: Conversion) -> Callable[[], None]:
    """What runs the job on its engine. Raises UserError for Beam's flags where they make no sense."""
    from pipeline.direct import is_direct, plan_local

    local = plan_local(arguments.beam, job.source_bytes)
    _quieten_beam()
    with lean_imports():
        import apache_beam as beam

        from pipeline import transforms
        from pipeline.engines import explain, stop_engines
        from pipeline.lock import unlock
        from pipeline.runners import make_runner

    def end(how: str) -> None:
        """Beam's driver would wait for the lost worker forever."""
        if sys.stdout.isatty():
            print("\r\x1b[2K\x1b[?25h", end="", flush=True)  # the bar's line goes, the cursor comes back
        print(f"pipeline.convert: {how}; {_RESUMES}", file=sys.__stderr__, flush=True)
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


if __name__ == "__main__":
    status = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)  # what Beam has running in the background would take a quarter of a second to end
