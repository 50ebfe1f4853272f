"""python -m model.train: shards in, a recogniser out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from model.train.options import TrainConfig, parse_arguments
from schemas.command import run_command
from schemas.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from model.train.interruption import Interruption
    from pipeline.reader.records import Records


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command("model.train", lambda: train(parse_arguments(sys.argv[1:] if argv is None else argv)))


def train(config: TrainConfig) -> int:
    """One run, from where it stopped to its end; returns the exit status. Raises UserError."""
    from model.train.interruption import Interrupted, Interruption

    with Interruption() as interruption:
        try:
            return _train(config, interruption)
        except Interrupted as stopped:
            print(f"model.train: stopped by {stopped}; {interruption.advice}", file=sys.stderr)
            return stopped.exit_status


def _train(asked: TrainConfig, interruption: Interruption) -> int:
    # TensorFlow takes seconds to import: --help and a misspelt flag needn't wait for it.
    from model.network.devices import cluster_of_environment, replica_count, setup_tensorflow
    from pipeline.reader.dataset import open_dataset

    cluster, data = cluster_of_environment(), open_dataset(asked.data, asked.cache_bytes)
    setup_tensorflow()
    interruption.check()
    from contextlib import nullcontext
    from pathlib import Path

    from model.data.batches import input_mode
    from model.network.memory import gpu_memory_bytes
    from model.train import run_folder
    from model.train.failures import training_failures
    from model.train.loop import evaluated_records

    # Input and devices: refused before anything is written
    folder = Path(asked.model_dir)
    evaluated, replicas = evaluated_records(asked, data), replica_count(asked.replicas)
    workers = 1 if cluster is None else len(cluster.tasks)
    records = data.records(asked.split, asked.where)
    mode = input_mode(
        records,
        mode=asked.input,
        global_batch=asked.global_batch,
        device_bytes=gpu_memory_bytes(replicas // workers),
        workers=workers,
    )
    if asked.global_batch % replicas:
        raise UserError(f"--global_batch {asked.global_batch:,}: expected a multiple of the {replicas} replicas")
    if asked.batch_norm and asked.global_batch == replicas:
        raise UserError(
            f"--global_batch {asked.global_batch:,}: expected 2 samples a replica or more; "
            "batch normalisation has nothing to learn from one"
        )
    run_folder.check_own(folder)
    writes = cluster is None or cluster.own == 0
    with (
        run_folder.locked(folder) if writes else nullcontext(),
        training_failures(asked.global_batch, workers),
    ):
        status = _run(asked, records, evaluated, mode, replicas, interruption)
        if status == 0 and writes:
            interruption.advice = "the model is there; the same command makes what is missing of calibration and report"
            interruption.check()
            _finish(folder, asked, evaluated)
    return status


def _run(
    asked: TrainConfig,
    records: Records,
    evaluated: Records | None,
    mode: str,
    replicas: int,
    interruption: Interruption,
) -> int:
    """The training itself; returns the exit status."""
    from dataclasses import asdict
    from pathlib import Path

    from model.answers.scoring import share_of
    from model.data.batches import training_source
    from model.network.devices import cluster_of_environment, has_gpu, make_strategy, place_of
    from model.train import run_folder
    from model.train.checkpoint import Checkpoints, Progress, Writer, last_step
    from model.train.failures import writing
    from model.train.loop import Loop, Task
    from model.train.progress import Report
    from model.train.steps.state import TrainState, build_step_model, start_from
    from model.train.steps.step import policy_of, resolve_precision, resolve_xla

    # Settings: as the run began, or as this machine would have them
    folder, data = Path(asked.model_dir), records.data
    earlier = run_folder.earlier_description(folder)
    mode = mode if earlier is None else earlier["input_mode"]
    chosen = {
        "precision": resolve_precision(asked.precision),
        "xla": resolve_xla(asked.xla),
        "replicas": replicas,
    }
    config = run_folder.settled(asked, earlier, chosen)
    cluster = cluster_of_environment()
    description = run_folder.describe(config, records, mode, 1 if cluster is None else len(cluster.tasks))
    if earlier is not None:
        run_folder.check_same_run(folder, earlier, description, {name: asdict(asked)[name] for name in chosen})
    said = run_folder.said_to_others(config, description, evaluated, last_step(folder))
    strategy = make_strategy(config.replicas, said)
    interruption.renew()
    interruption.check()
    share = share_of(strategy)
    source = training_source(records, mode=mode, global_batch=config.global_batch, seed=config.seed, share=share)
    total_steps = config.steps or config.epochs * source.steps_per_epoch

    # Model: a pure function, and the variables it is called with
    model = build_step_model(config, data.card.image_size, len(data.classes), policy_of(config.precision))
    begun = ""
    if config.init_from is not None and not last_step(folder):
        begun = start_from(Path(config.init_from), model, data.classes)
    state = TrainState(model, strategy, config)

    # Checkpoint: where the run stands
    place = place_of(strategy)
    progress = Progress(config.seed)
    if place.writes:
        with writing(folder):
            run_folder.begin(folder, description, data.classes)
    writer = Writer()
    checkpoints = Checkpoints(folder, state, progress, config, writer, place)
    resumed = checkpoints.restore()
    if place.writes:
        with writing(folder):
            run_folder.cut_metrics(folder, int(progress.step.numpy()), int(progress.evaluated_step.numpy()))

    # Loop: steps, evaluations, checkpoints, until the end or a signal
    report = Report(folder, total_steps, source.steps_per_epoch, writes=place.writes)
    where = "" if config.where is None else f" where {config.where}"
    report.say(
        f"{config.arch}, {model.count_params():,} parameters, {len(data.classes):,} classes; "
        f"{len(records):,} samples of {config.split!r}{where} ({source.mode}), "
        f"{total_steps:,} steps of {config.global_batch:,}; "
        f"{replicas} × {'GPU' if has_gpu() else 'CPU'}, {config.precision}, {'XLA' if config.xla else 'no XLA'}"
    )
    if config.burdens:
        report.say(f"the training loss holds {config.burdens}; an evaluation's doesn't, and is smaller")
    if begun:
        report.say(f"begins with the weights of {begun}")
    if resumed:
        report.say(f"resuming at step {int(progress.step.numpy()):,} of {total_steps:,}")
    task = Task(config, data, evaluated, folder, source, total_steps)
    interruption.check()
    interruption.advice = "the same command goes on from the last checkpoint"
    try:
        return Loop(task, strategy, model, state, progress, checkpoints, writer, report, interruption).run()
    finally:
        report.close()


def _finish(folder: Path, config: TrainConfig, evaluated: Records | None) -> None:
    """What the answers are worth and what to look at first, where that is missing or older than the model.

    The model is there by now, without calibration and report.
    """
    from model.answers.calibration import CALIBRATION
    from model.answers.run import load_model, read_run
    from model.answers.scoring import Evaluation, calibrate_run, forward_of
    from model.report import REPORT, write_report
    from model.train import run_folder

    try:
        if evaluated is not None and not (folder / CALIBRATION).exists():
            run = read_run(folder)
            evaluation = Evaluation(forward_of(load_model(run)))
            trust = calibrate_run(run, evaluation, evaluated)
            print(f"{folder / CALIBRATION}: {trust.summary}")
        if run_folder.is_stale(folder / REPORT):
            split = config.split if evaluated is None else evaluated.split
            print(f"{write_report(folder, config.data, split, config.cache_bytes)}: the page to look at")
    except UserError as error:
        print(f"model.train: no {CALIBRATION}, or no {REPORT}: {error}", file=sys.stderr)
