"""python -m model.train: shards in, a recogniser out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from model.train.options import TrainConfig, parse_arguments
from schemas.command import run_command
from schemas.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command("model.train", lambda: train(parse_arguments(sys.argv[1:] if argv is None else argv)))


def train(config: TrainConfig) -> int:
    """One run, from where it stopped to its end; returns the exit status. Raises UserError."""
    # TensorFlow takes seconds to import: --help and a misspelt flag needn't wait for it.
    from model.network.devices import has_gpu, make_strategy, place_of, setup_tensorflow

    setup_tensorflow()
    from pathlib import Path

    from model.data.batches import training_source
    from model.train import run_folder
    from model.train.checkpoint import Checkpoints, Progress, writing
    from model.train.loop import Loop, Task, evaluated_split
    from model.train.progress import Report
    from model.train.start import start_from
    from model.train.state import TrainState, build_step_model
    from model.train.step import policy_of, resolve_precision, resolve_xla
    from schemas.reader import open_dataset

    # Input: which samples, in which order
    folder = Path(config.model_dir)
    data = open_dataset(config.data)
    eval_split = evaluated_split(config, data)
    earlier = run_folder.earlier_description(folder)
    if earlier is not None:
        run_folder.check_same_run(folder, earlier, run_folder.describe(config, data, earlier["input_mode"]))
    strategy = make_strategy(config.replicas)
    replicas = strategy.num_replicas_in_sync
    if config.global_batch % replicas:
        raise UserError(f"--global_batch {config.global_batch:,}: expected a multiple of the {replicas} replicas")
    if config.batch_norm and config.global_batch == replicas:
        raise UserError(
            f"--global_batch {config.global_batch:,}: expected 2 samples a replica or more; "
            "batch normalisation has nothing to learn from one"
        )
    mode = config.input if earlier is None else earlier["input_mode"]
    source = training_source(data, config.split, mode=mode, global_batch=config.global_batch, seed=config.seed)
    total_steps = config.steps or config.epochs * source.steps_per_epoch

    # Model: a pure function, and the variables it is called with
    precision = resolve_precision(config.precision)
    model = build_step_model(config, data.card.image_size, len(data.classes), policy_of(precision))
    shared = None
    if config.init_from is not None and not run_folder.has_checkpoint(folder):
        shared = start_from(Path(config.init_from), model, data.classes)
    state = TrainState(model, strategy, config, loss_scaling=precision == "float16")

    # Checkpoint: where the run stands
    place = place_of(strategy)
    progress = Progress(config.seed)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if place.writes and earlier is None:
            run_folder.begin(folder, run_folder.describe(config, data, source.mode), data.classes)
    checkpoints = Checkpoints(folder, state, progress, config, place)
    resumed = checkpoints.restore()
    if place.writes:
        with writing(folder):
            run_folder.cut_metrics(folder, int(progress.step.numpy()), int(progress.evaluated_step.numpy()))

    # Loop: steps, evaluations, checkpoints, until the end or a signal
    report = Report(folder, total_steps, source.steps_per_epoch, writes=place.writes)
    report.say(
        f"{config.arch}, {model.count_params():,} parameters, {len(data.classes):,} classes; "
        f"{source.records:,} samples of {config.split!r} ({source.mode}), "
        f"{total_steps:,} steps of {config.global_batch:,}; "
        f"{replicas} × {'GPU' if has_gpu() else 'CPU'}, {precision}, {'XLA' if resolve_xla(config.xla) else 'no XLA'}"
    )
    if shared is not None:
        report.say(f"begins with the weights of {config.init_from}, {shared:,} of the characters are its own")
    if resumed:
        report.say(f"resuming at step {int(progress.step.numpy()):,} of {total_steps:,}")
    task = Task(config, data, eval_split, folder, source, total_steps)
    try:
        status = Loop(task, strategy, model, state, progress, checkpoints, report).run()
    finally:
        report.close()

    # Calibration and report: what the answers are worth, what to look at first. The model is there by now, without them
    if status == 0 and place.writes:
        from model.answers.calibration import CALIBRATION
        from model.answers.run import load_model, read_run
        from model.answers.scoring import Evaluation, calibrate_run, forward_of
        from model.report import REPORT, write_report

        try:
            if eval_split is not None and not (folder / CALIBRATION).exists():
                run = read_run(folder)
                evaluation = Evaluation(forward_of(load_model(run)))
                trust = calibrate_run(run, evaluation, data, eval_split)
                print(f"{folder / CALIBRATION}: temperature {trust.temperature:.3f}, threshold {trust.threshold:.3f}")
            if not (folder / REPORT).exists():
                print(f"{write_report(folder, Path(config.data), eval_split or config.split)}: the page to look at")
        except UserError as error:
            print(f"model.train: no {CALIBRATION}, or no {REPORT}: {error}", file=sys.stderr)
    return status
