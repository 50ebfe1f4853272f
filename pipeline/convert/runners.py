"""Which of Beam's engines runs the job, and with which of Beam's flags."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner

from pipeline.convert.direct import LocalPlan, is_direct
from pipeline.convert.engines import make_engine
from pipeline.convert.options import STEPS, Arguments
from pipeline.convert.workers import forked_environment, ignore_broken_connections
from schemas.errors import UserError

_View = TypeVar("_View", bound=PipelineOptions)
_OUR_FLAGS = ("input", "preset", *(flag.name for flag in fields(Arguments)), *STEPS)
_RAY = "the Ray runner is an abandoned prototype, and nobody vouches for what it leaves out"
_LOSES_DATA = {
    "daskrunner": "Beam's DaskRunner merges tagged outputs and drops what a bundle emits at its end, so records would "
    "be lost without a word",
    "rayrunner": _RAY,
    "rayfnapirunner": _RAY,
}


def make_runner(
    name: str, flags: Sequence[str], local: LocalPlan, on_lost: Callable[[str], None]
) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner and its options. Raises UserError for a runner that loses data and for flags nobody knows.

    `local` is what DirectRunner follows; `on_lost` hears it when one of DirectRunner's worker processes is killed.
    """
    if is_direct(name):
        return _direct_runner(flags, local, on_lost)
    reason = _LOSES_DATA.get(name.lower().rpartition(".")[2])
    if reason is not None:
        raise UserError(f"--runner={name}: {reason}; use DirectRunner, or FlinkRunner on a cluster")
    _refuse_misspelt(flags)
    logging.disable(logging.CRITICAL)  # an engine's log goes through Python's; what matters comes as an exception
    threading.excepthook = ignore_broken_connections
    return make_engine(name, flags)


def _direct_runner(
    flags: Sequence[str], local: LocalPlan, on_lost: Callable[[str], None]
) -> tuple[PipelineRunner, PipelineOptions]:
    """Beam's FnApiRunner, by name: DirectRunner would look for a Prism binary on the network first."""
    options = _Options(list(flags))
    if flags:
        _refuse_unknown(options)
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = local.workers
    if local.mode != "multi_processing":
        return FnApiRunner(), options
    direct.direct_running_mode = None  # the mode would put Beam's own way of starting workers in the place of ours
    environment = forked_environment(on_lost)
    return FnApiRunner(default_environment=environment, provision_info=_provision_info(options)), options


class _Options(PipelineOptions):
    """Beam's options, of which it asks for the same few views a hundred times, and would parse the flags for each."""

    def view_as(self, cls: type[_View]) -> _View:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return cast(_View, views[cls])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}


def _provision_info(options: PipelineOptions) -> ExtendedProvisionInfo:
    """The user's flags for workers in processes of their own, which FnApiRunner forgets: they open URLs with them."""
    given = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    return ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(retrieval_token="none", pipeline_options=given))


def _refuse_misspelt(flags: Sequence[str]) -> None:
    """Another runner can have flags of its own, which only it knows; one that is nearly ours is a slip."""
    for flag in flags:
        name = flag.removeprefix("--").partition("=")[0]
        close = difflib.get_close_matches(name, _OUR_FLAGS, 1, cutoff=0.85)
        if flag.startswith("--") and close:
            raise UserError(f"--{name}: neither this command nor Beam knows this flag; did you mean --{close[0]}?")


def _refuse_unknown(options: PipelineOptions) -> None:
    """Beam ignores a flag it doesn't know, with a warning: a misspelt one of ours would be lost."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known = options.get_all_options()
            unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    except SystemExit as error:
        raise UserError(complaint.getvalue().strip().rpartition("error: ")[2]) from error
    for name in sorted(unknown):
        close = difflib.get_close_matches(name, [*known, *_OUR_FLAGS], 1)
        hint = f"did you mean --{close[0]}?" if close else "--help lists ours"
        raise UserError(f"--{name}: neither this command nor Beam knows this flag; {hint}")
