"""Which of Beam's engines runs the job, and with which of Beam's flags."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import fields

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from pipeline.convert.direct import ForkServer, LocalPlan, Pools
from pipeline.convert.engines.portable import make_engine, parsed_flags
from pipeline.convert.options import Settings
from pipeline.steps.settings import STEPS
from schemas.errors import UserError

_OUR_FLAGS = ("input", *(flag.name for flag in fields(Settings)), *STEPS)
_RAY = "the Ray runner is an abandoned prototype, and nobody vouches for what it leaves out"
_LOSES_DATA = {
    "daskrunner": "Beam's DaskRunner merges tagged outputs and drops what a bundle emits at its end, so records would "
    "be lost without a word",
    "rayrunner": _RAY,
    "rayfnapirunner": _RAY,
}


def make_runner(
    settings: Settings, local: LocalPlan | None, source: ForkServer | Pools | None, say: Callable[[str], object]
) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner and its options. Raises UserError for a runner that loses data and for flags nobody knows.

    `local` is what DirectRunner follows, None for any other; `source` has its workers, where they are processes.
    """
    name, flags = settings.runner, list(settings.beam)
    if settings.log_level and not any(flag.startswith("--default_sdk_harness_log_level") for flag in flags):
        flags.append(f"--default_sdk_harness_log_level={settings.log_level.upper()}")
    if local is not None:
        return _direct_runner(flags, local, source, say, logs=bool(settings.log_level))
    reason = _LOSES_DATA.get(name.lower().rpartition(".")[2])
    if reason is not None:
        raise UserError(f"--runner={name}: {reason}; use DirectRunner, or FlinkRunner on a cluster")
    _refuse_misspelt(flags)
    return make_engine(name, flags)


def _direct_runner(
    flags: Sequence[str],
    local: LocalPlan,
    source: ForkServer | Pools | None,
    say: Callable[[str], object],
    *,
    logs: bool,
) -> tuple[PipelineRunner, PipelineOptions]:
    """Beam's FnApiRunner, by name: DirectRunner would look for a Prism binary on the network first."""
    options = PipelineOptions(list(flags))
    if flags:
        _refuse_unknown(options)
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = local.workers
    # Beam would start processes of its own for that mode; without any, it takes its default, threads in this one.
    direct.direct_running_mode = None if local.mode in ("multi_processing", "pools") else local.mode
    if source is not None:
        try:
            from pipeline.convert.workers.forked import worker_runner

            return worker_runner(source, options, logs=logs), options
        except (ImportError, AttributeError, TypeError) as error:
            say(f"this Beam starts workers in another way ({error}): all runs in one process, which takes longer")
    return FnApiRunner(), options


def _refuse_misspelt(flags: Sequence[str]) -> None:
    """Another runner can have flags of its own, which only it knows; one that is nearly ours is a slip."""
    for flag in flags:
        name = flag.removeprefix("--").partition("=")[0]
        close = difflib.get_close_matches(name, _OUR_FLAGS, 1, cutoff=0.85)
        if flag.startswith("--") and close:
            raise UserError(f"--{name}: neither this command nor Beam knows this flag; did you mean --{close[0]}?")


def _refuse_unknown(options: PipelineOptions) -> None:
    """Beam ignores a flag it doesn't know, with a warning: a misspelt one of ours would be lost."""
    known, unknown = parsed_flags(options)
    for name in unknown:
        close = difflib.get_close_matches(name, [*known, *_OUR_FLAGS], 1)
        hint = f"did you mean --{close[0]}?" if close else "--help lists ours"
        raise UserError(f"--{name}: neither this command nor Beam knows this flag; {hint}")
