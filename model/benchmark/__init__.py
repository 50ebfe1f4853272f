"""python -m model.benchmark: how fast this machine trains, stage by stage, and what share of its peak that is."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from model.network.devices import has_gpu, setup_tensorflow
from model.train.options import PRECISIONS, TrainConfig, add_flags
from pipeline.reader.dataset import open_dataset
from schemas.command import EXIT_USER_ERROR, Parser, at_least, local_path, prints_its_product, run_command
from schemas.command.outputs import check_output, mark_of, output
from schemas.errors import UserError, explained

COMMAND = "model.benchmark"
STAGES = ("input", "forward", "forward_backward", "step", "loop")
_XLA = {"on": [True], "off": [False], "both": [True, False]}
_GPU_BATCH, _CPU_BATCH = 256, 8
_SHARED = ("split", "arch", "width", "dense_width", "augment")
"""Flags of model.train, the same for every job."""
_COLUMNS = ("stage", "precision", "XLA", "replicas", "batch", "images/s", "ms/step", "of peak")
_WIDTHS = (-18, -9, -3, 8, 7, 9, 10, 8)
"""In characters, negative for text: a row is printed when it is there, whatever the others will be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 if a configuration couldn't be timed, the others still are."""
    parser = Parser(
        COMMAND, "Times the stages of training: input alone, forward, forward + backward, step, whole loop."
    )
    parser.add_argument("--data", type=local_path, required=True, metavar="DIR", help="the folder of a data set")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help=" ".join(STAGES)
    )
    add_flags(parser, *_SHARED)
    parser.add_argument(
        "--replica_batch",
        type=int,
        metavar="N",
        help=f"samples a step and replica (default: {_GPU_BATCH}, without a GPU {_CPU_BATCH})",
    )
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["auto"], help="one or several")
    parser.add_argument("--xla", choices=_XLA, help="default: both, without a GPU off")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1], metavar="N", help="one or several (default: 1)")
    add_flags(parser, "input")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="for each figure, without compilation (default: 5)"
    )
    parser.add_argument("--json", type=local_path, metavar="FILE", help="write the figures there, too")

    def body() -> int:
        flags = parser.parse_args(argv)
        for replicas in flags.replicas:
            at_least(1, "--replicas", replicas)
        if flags.replica_batch is not None:
            at_least(1, "--replica_batch", flags.replica_batch)
        if not 0 < flags.seconds < float("inf"):
            raise UserError(f"--seconds {flags.seconds}: expected more than 0")
        if flags.json is not None:
            check_output(flags.json, COMMAND)
        open_dataset(flags.data)
        _choose_defaults(flags)
        shared = {name: getattr(flags, name) for name in (*_SHARED, "input")}
        shared |= {"data": str(flags.data), "model_dir": "", "schedule": "constant"}
        stages = [stage for stage in STAGES if stage in flags.stages and stage != "input"]
        configs = [
            shared
            | {"global_batch": count * flags.replica_batch, "replicas": count, "precision": precision, "xla": xla}
            for count, precision, xla in product(flags.replicas, flags.precision, _XLA[flags.xla])
        ]
        jobs = [{"stages": stages, "seconds": flags.seconds, "config": config} for config in configs if stages]
        if "input" in flags.stages:
            config = shared | {"global_batch": flags.replica_batch}
            jobs.insert(0, {"stages": ["input"], "seconds": flags.seconds, "config": config})
        if flags.json is None:
            prints_its_product()
        return benchmark(jobs, flags.json)

    return run_command(COMMAND, body)


def _choose_defaults(flags: argparse.Namespace) -> None:
    """Of the flags that weren't given: a step of 256 by VGG19 is half a minute on two cores."""
    if None not in (flags.replica_batch, flags.xla):
        return
    setup_tensorflow()
    gpu = has_gpu()
    flags.replica_batch = flags.replica_batch or (_GPU_BATCH if gpu else _CPU_BATCH)
    flags.xla = flags.xla or ("both" if gpu else "off")
    if not gpu:
        _say(f"no GPU: --replica_batch {flags.replica_batch} --xla {flags.xla}")


def benchmark(jobs: Sequence[dict[str, Any]], path: Path | None) -> int:
    """Runs each job in a process of its own and shows each row when it is there; returns the exit status."""
    for job in jobs:
        TrainConfig(**job["config"])  # refused before anything is timed
    rows: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    status = 0
    for job in jobs:
        try:
            for entry in run_apart(job):
                if not machine:
                    machine = entry["machine"]
                    devices = ", ".join(machine["gpus"]) or "no GPU"
                    _say(f"{devices}; {machine['cpu_cores']} CPU cores; TensorFlow {machine['tensorflow']}")
                    _say(_line(_COLUMNS))
                rows += entry["rows"]
                for row in entry["rows"]:
                    _say(_line(_cells(row)))
        except UserError as error:
            print(f"{COMMAND}: {error}", file=sys.stderr)
            status = EXIT_USER_ERROR
    for line in _loop_beside_step(rows):
        _say(line)
    if path is not None:
        figures = {"written_by": mark_of(COMMAND), "machine": machine, "rows": rows}
        with explained(f"write {path}"), output(path, COMMAND) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
        _say(f"{path}")
    return status


def run_apart(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `child` tells, as it tells it, from a new process.

    A second strategy in one process can fail, and memory stays taken. Raises UserError where the process fails.
    """
    command = [sys.executable, "-c", "from model.benchmark import child; child()", json.dumps(job)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
            status = process.wait()
        finally:
            process.kill()  # if it is still there: this one was interrupted
        errors.seek(0)
        found = errors.read().strip().splitlines()
    if status == 0:
        return
    config = job["config"]
    asked = (
        f"{config.get('replicas') or 1} replicas, {config.get('precision', 'uint8')}, "
        f"XLA {'on' if config.get('xla') else 'off'}"
    )
    reason = (found or [f"exit status {status}"])[-1]
    raise UserError(reason if status == EXIT_USER_ERROR else f"{asked}: can't be timed: {reason[:300]}")


def child() -> None:
    """The process of one job, its argument: a line of JSON with the machine, and one for each stage's rows."""
    job = json.loads(sys.argv[1])
    # What a library prints must not stand between the lines.
    told, sys.stdout = sys.stdout, sys.stderr

    def tell(**entry: Any) -> None:
        print(json.dumps(entry), file=told, flush=True)

    try:
        setup_tensorflow()
        from model.benchmark.timing import Trainer, machine, time_input

        config = TrainConfig(**job["config"])
        tell(machine=machine(), rows=[])
        found = (
            time_input(config, job["seconds"])
            if job["stages"] == ["input"]
            else Trainer(config).time(job["stages"], job["seconds"])
        )
        for row in found:
            tell(rows=[row])
    except Exception as error:
        print(" ".join(str(error).split())[:400] or type(error).__name__, file=sys.stderr)
        sys.exit(EXIT_USER_ERROR if isinstance(error, UserError) else 1)


def _say(line: str) -> None:
    print(line, flush=True)


def _line(cells: Iterable[str]) -> str:
    parts = [f"{cell:{'<' if width < 0 else '>'}{abs(width)}}" for cell, width in zip(cells, _WIDTHS, strict=True)]
    return "  ".join(parts).rstrip()


def _loop_beside_step(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the trainer's loop adds to the bare step, for each configuration that timed both."""
    steps = {_configuration(row): row["ms_per_step"] for row in rows if row["stage"] == "step"}
    for row in rows:
        step = steps.get(_configuration(row))
        if row["stage"] == "loop" and step is not None:
            xla = "with XLA" if row["xla"] else "without XLA"
            ratio = row["ms_per_step"] / step
            yield f"loop: {ratio:.3f} of the bare step ({row['precision']}, {xla}, {row['replicas']} replicas)"


def _configuration(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["precision"], row["xla"], row["replicas"], row["global_batch"]


def _cells(row: dict[str, Any]) -> list[str]:
    share, xla = row["share_of_peak"], row["xla"]
    return [
        row["stage"].replace("_", " + "),
        row["precision"],
        {True: "on", False: "off", None: ""}[xla],
        str(row["replicas"]),
        f"{row['global_batch']:,}",
        f"{row['images_per_second']:,.0f}",
        f"{row['ms_per_step']:,.2f}",
        f"{share:.1%}" if share is not None else "" if xla is None else "unknown",
    ]
