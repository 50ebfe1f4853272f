"""python -m model.benchmark: how fast this machine trains, stage by stage, and what share of its peak that is."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from model.network.devices import setup_tensorflow
from model.train.options import PRECISIONS, TrainConfig, add_flags
from schemas.command import (
    EXIT_USER_ERROR,
    Parser,
    at_least,
    local_path,
    make_console,
    print_table,
    prints_its_product,
    run_command,
)
from schemas.errors import UserError, explained
from schemas.machine import replace_text

COMMAND = "model.benchmark"
STAGES = ("input", "forward", "forward_backward", "step", "loop")
_XLA = {"on": [True], "off": [False], "both": [True, False]}
_SHARED = ("split", "arch", "width", "dense_width", "augment")
"""Flags of model.train, the same for every job."""


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
    parser.add_argument("--replica_batch", type=int, default=256, metavar="N", help="samples a step and replica")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["auto"], help="one or several")
    parser.add_argument("--xla", choices=_XLA, default="both")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1], metavar="N", help="one or several (default: 1)")
    parser.add_argument("--input", default="memory", choices=("memory", "stream"), help="of the whole loop")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each figure, without compilation")
    parser.add_argument("--json", type=local_path, metavar="FILE", help="write the figures there, too")

    def body() -> int:
        flags = parser.parse_args(argv)
        for replicas in flags.replicas:
            at_least(1, "--replicas", replicas)
        at_least(1, "--replica_batch", flags.replica_batch)
        if not 0 < flags.seconds < float("inf"):
            raise UserError(f"--seconds {flags.seconds}: expected more than 0")
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
        return benchmark(jobs, make_console(), flags.json)

    return run_command("model.benchmark", body)


def benchmark(jobs: Sequence[dict[str, Any]], console: Console, output: Path | None) -> int:
    """Runs each job in a process of its own and shows the rows; returns the exit status."""
    for job in jobs:
        TrainConfig(**job["config"])  # refused before anything is timed
    rows: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    status = 0
    for number, job in enumerate(jobs, start=1):
        if console.is_terminal:
            console.print(f"timing {number} of {len(jobs)} …", end="\r")
        try:
            result = run_apart(job)
        except UserError as error:
            print(f"{COMMAND}: {error}", file=sys.stderr)
            status = EXIT_USER_ERROR
            continue
        machine = result["machine"]
        rows += result["rows"]
    if rows:
        devices = ", ".join(machine["gpus"]) or "no GPU"
        console.print(f"{devices}; {machine['cpu_cores']} CPU cores; TensorFlow {machine['tensorflow']}")
        columns = ["", "precision", "XLA", "replicas", "batch", "images/s", "ms/step", "of peak"]
        print_table(console, "", columns, list(_cells(rows)), left=3)
        for line in _loop_beside_step(rows):
            console.print(line)
    if output is not None:
        with explained(f"write {output}"):
            replace_text(output, json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        console.print(f"{output}")
    return status


def run_apart(job: dict[str, Any]) -> dict[str, Any]:
    """What `child` finds, in a new process: a second strategy in one process can fail, and memory stays taken."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-c", "from model.benchmark import child; child()", json.dumps(job), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(result.read_text("utf-8"))
            return found
    config = job["config"]
    asked = (
        f"{config.get('replicas') or 1} replicas, {config.get('precision', 'uint8')}, XLA {config.get('xla', 'off')}"
    )
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    raise UserError(reason if done.returncode == EXIT_USER_ERROR else f"{asked}: can't be timed: {reason[:300]}")


def child() -> None:
    """The process of one job: the job and the file for its result are its arguments."""
    job, result = json.loads(sys.argv[1]), Path(sys.argv[2])

    try:
        setup_tensorflow()
        from model.benchmark.timing import Trainer, machine, time_input

        config = TrainConfig(**job["config"])
        if job["stages"] == ["input"]:
            rows = time_input(config, job["seconds"])
        else:
            rows = Trainer(config).time(job["stages"], job["seconds"])
        result.write_text(json.dumps({"machine": machine(), "rows": rows}), "utf-8")
    except Exception as error:
        print(" ".join(str(error).split())[:400] or type(error).__name__, file=sys.stderr)
        sys.exit(EXIT_USER_ERROR if isinstance(error, UserError) else 1)


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


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        share, xla = row["share_of_peak"], row["xla"]
        yield [
            row["stage"].replace("_", " + "),
            row["precision"],
            {True: "on", False: "off", None: ""}[xla],
            str(row["replicas"]),
            f"{row['global_batch']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{row['ms_per_step']:,.2f}",
            f"{share:.1%}" if share is not None else "" if xla is None else "unknown",
        ]
