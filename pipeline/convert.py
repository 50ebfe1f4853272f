"""python -m pipeline.convert: GNT archives in, TFRecord shards and a Parquet manifest out."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence

from pipeline.errors import EXIT_USER_ERROR, UserError, user_error_in
from pipeline.options import Arguments, parse_arguments

EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        convert(parse_arguments(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"pipeline.convert: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("pipeline.convert: interrupted; the same command goes on from where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def convert(arguments: Arguments) -> None:
    """One conversion, from the inputs to the card. Raises UserError for what the user can mend."""
    _quieten_beam()
    # Beam takes seconds to import: --help and a misspelt flag needn't wait for it.
    import apache_beam as beam
    from rich.console import Console

    from pipeline import storage, transforms
    from pipeline.lock import locked
    from pipeline.plan import plan_conversion
    from pipeline.progress import Meter, shown
    from pipeline.runners import make_runner
    from pipeline.summary import print_summary
    from pipeline.watchdog import watching
    from schemas.dataset import CARD, parse_card

    started = time.monotonic()
    job = plan_conversion(arguments)
    source_bytes = sum(member.size_bytes for member in job.members)
    runner, options = make_runner(arguments.runner, arguments.beam, source_bytes)
    console = Console(soft_wrap=True)
    pipeline = beam.Pipeline(runner=runner, options=options)
    transforms.convert(pipeline, job)
    with locked(job.staging, job.output) as release:
        meter = Meter(job.staging, source_bytes, sum(job.config.num_shards.values()))
        try:
            with shown(meter, console), watching(release):
                pipeline.run().wait_until_finish()
        except Exception as error:
            message = user_error_in(f"{type(error).__name__}: {error}")
            if message is None:
                raise
            raise UserError(message) from error
        if not arguments.keep_staging:
            storage.delete_folder(job.staging)
    card = parse_card(storage.read_bytes(storage.join(job.output, CARD)).decode(), job.output)
    print_summary(card, job.output, time.monotonic() - started, console)


def _quieten_beam() -> None:
    """What goes wrong reaches the user as an exception; Beam's warnings on a good run are noise."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(level=logging.CRITICAL)
    logging.getLogger().setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
