"""Which of Beam's engines runs the job, and with which of Beam's flags."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.errors import UserError
from pipeline.options import STEPS, Arguments

SMALL_INPUT_BYTES = 128 << 20  # 128 MiB: less is done here before a second process has imported Beam
_WORKER = "pipeline.worker"
_OUR_FLAGS = ("input", *(flag.name for flag in fields(Arguments)), *STEPS)
_LOSES_DATA = {
    "daskrunner": "Beam's DaskRunner merges tagged outputs and drops what a bundle emits at its end",
    "rayrunner": "the Ray runner is an abandoned prototype",
}


def make_runner(name: str, flags: Sequence[str], source_bytes: int) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner and its options. Raises UserError for a runner that loses data and for flags nobody knows."""
    key = name.lower().rpartition(".")[2]
    if key in _LOSES_DATA:
        raise UserError(
            f"--runner={name}: {_LOSES_DATA[key]}, so records would be lost; use DirectRunner or FlinkRunner"
        )
    if key == "directrunner":
        return _direct_runner(flags, source_bytes)
    try:
        return create_runner(name), PipelineOptions([f"--runner={name}", *flags])
    except (ValueError, ImportError) as error:
        raise UserError(f"--runner={name}: expected one of Beam's runners, found none of that name") from error


def _direct_runner(flags: Sequence[str], source_bytes: int) -> tuple[PipelineRunner, PipelineOptions]:
    """Beam's FnApiRunner, by name: DirectRunner would look for a Prism binary on the network first."""
    options = PipelineOptions(list(flags))
    _refuse_unknown(options)
    direct = options.view_as(DirectOptions)
    asked_workers = any(flag.startswith("--direct_num_workers") for flag in flags)
    asked_mode = any(flag.startswith("--direct_running_mode") for flag in flags)
    workers = direct.direct_num_workers if asked_workers else 0
    workers = workers or os.cpu_count() or 1
    if not asked_mode:
        few = workers == 1 or (not asked_workers and source_bytes < SMALL_INPUT_BYTES)
        direct.direct_running_mode = "in_memory" if few else "multi_processing"
    if direct.direct_running_mode == "in_memory" and not asked_workers:
        workers = 1
    direct.direct_num_workers = workers
    if direct.direct_running_mode != "multi_processing":
        return FnApiRunner(), options
    # Naming the environment is what the mode would do, but Beam's own way breaks where Python's path has a space in it.
    direct.direct_running_mode = None
    command = f"exec {shlex.quote(sys.executable)} -m {_WORKER}"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command)), options


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
