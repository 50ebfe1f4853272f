"""A conversion from Python: settings in, card out."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline.convert.direct import (
    ForkServer,
    Pools,
    is_direct,
    loopback_without_proxy,
    may_fork,
    named_pools,
    plan_local,
)
from pipeline.convert.options import Settings
from schemas.command.signals import heed_swallowed
from schemas.dataset import CARD, Card, parse_card
from schemas.errors import UserError, user_error_in

if TYPE_CHECKING:
    from pipeline.convert.plan import Conversion

Shown = Callable[["Conversion"], contextlib.AbstractContextManager[object]]
"""What shows the progress of a job while its block runs."""


def run_conversion(
    settings: Settings, shown: Shown = contextlib.nullcontext, say: Callable[[str], object] = print
) -> Card:
    """Converts archives into a data set, and returns its card.

    It may be called from a script without a guard, from a notebook and from any thread; it neither ends the process it
    runs in nor touches its loggers. The same settings go on from where a conversion stopped. `shown` may show its
    progress, `say` a line that isn't an error. Raises UserError for what the user can mend, EngineError for a run that
    was lost on its way.
    """
    _refuse_forked_process()
    with _handlers_left_alone(), loopback_without_proxy(), _workers(settings) as source:
        # Imported here: a misspelt setting doesn't wait for Arrow, nor a bad input for Beam.
        from pipeline import storage
        from pipeline.convert.plan import begin, plan_conversion
        from pipeline.shards import staging
        from pipeline.storage.lock import locked

        job = plan_conversion(settings)
        for line in job.warnings:
            say(line)
        run = _prepare(settings, job, source, say)
        heed_swallowed()
        with locked(job.output):
            begin(job)
            with shown(job):
                run()
            staging.clear(job.private)
            if settings.staging is None:
                staging.remove_empty(job.staging)
        return parse_card(storage.read_bytes(storage.join(job.output, CARD)), job.output)


_used_by: set[int] = set()
"""The process that has run a conversion; a fork of it inherits this."""


def _refuse_forked_process() -> None:
    """gRPC, over which Beam talks to its workers, would wait forever in a fork of a process that has used it."""
    _used_by.add(os.getpid())
    if len(_used_by) > 1:
        raise UserError(
            "this process is a fork of one that has run a conversion, and would wait forever; start it with "
            'multiprocessing.get_context("spawn")'
        )


@contextlib.contextmanager
def _handlers_left_alone() -> Iterator[None]:
    """Beam warns by functions of logging that give the root logger a handler where it has none."""
    before = list(logging.root.handlers)
    try:
        yield
    finally:
        logging.root.handlers[:] = before


@contextlib.contextmanager
def _workers(settings: Settings) -> Iterator[ForkServer | Pools | None]:
    """Where workers come from, if they are processes: of other machines, or forked from one that imports Beam now."""
    if not is_direct(settings.runner):
        yield None
        return
    pools = named_pools(settings.beam)
    # A child of multiprocessing's that ends with its parent may have none of its own.
    if pools or multiprocessing.current_process().daemon or not may_fork(settings.beam):
        yield pools
        return
    server = ForkServer()
    try:
        yield server
    finally:
        server.close()


def _prepare(
    settings: Settings, job: Conversion, source: ForkServer | Pools | None, say: Callable[[str], object]
) -> Callable[[], None]:
    """What runs the job on its engine. Raises UserError for Beam's flags where they make no sense."""
    import apache_beam as beam

    from pipeline.convert import transforms
    from pipeline.convert.engines import make_runner
    from pipeline.convert.engines.job import EngineJob
    from pipeline.convert.engines.portable import explain, stop_engines

    direct = is_direct(settings.runner)
    local = plan_local(settings.beam, job.source_bytes) if direct else None
    runner, options = make_runner(settings, local, source, say)
    engine_job = None if direct else EngineJob(options, job.output)

    def run() -> None:
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
        except ValueError as error:  # in several lines
            raise UserError(f"--runner={settings.runner}: {' '.join(str(error).split())}") from error
        try:
            transforms.convert(pipeline, job)
            if engine_job is None:
                pipeline.run().wait_until_finish()
            else:
                engine_job.run(pipeline)
        except Exception as error:
            if source is not None and source.loss is not None:
                raise source.loss from error
            message = user_error_in(f"{type(error).__name__}: {error}")
            if message is not None:
                raise UserError(message) from error
            failure = None if direct else explain(settings.runner, error)
            if failure is None:
                raise
            raise failure from error
        finally:
            stop_engines()
            shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)  # left there where its run hadn't begun

    return run
