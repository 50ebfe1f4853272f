"""The training loop: steps, evaluations and checkpoints, until the end of the run or a signal."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model.answers.calibration import CALIBRATION
from model.answers.metrics import TOP
from model.answers.run import MODEL
from model.answers.scoring import Evaluation
from model.data.batches import fitting_mode
from model.data.examples import damaged
from model.data.source import TrainingSource
from model.network.devices import gpu_names, has_gpu, place_of
from model.network.flops import peak_of, training_flops
from model.train.checkpoint import Checkpoints, Progress, Writer
from model.train.failures import is_lost, writing
from model.train.interruption import Interrupted, Interruption, exit_status_of, name_of
from model.train.options import TrainConfig
from model.train.profiling import TRACE, Profile
from model.train.progress import Report
from model.train.run_folder import TENSORBOARD
from model.train.steps.calls import CALL_STEPS, Steps
from model.train.steps.state import TrainState, build_plain_model, first_variables, set_evaluated_weights
from model.train.steps.step import compiled, make_forward, make_total
from model.train.steps.update import learning_rate, update_norm
from pipeline.reader.dataset import Dataset
from pipeline.reader.records import Records
from schemas.command import EXIT_TERMINATED
from schemas.errors import UserError
from schemas.machine import replaced

_CALL_SECONDS = 0.5  # of steps in one call: short enough for a bar that moves and for SIGTERM
_WORKERS_CALL_STEPS = 16  # workers must make the same calls, so the clock of one of them can't decide
_WORKERS_EVALUATION_BATCHES = 16  # after which they ask each other whether one is to stop
_DEFAULT_EVAL_SPLIT = "validation"


_DAMAGED = (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.FailedPreconditionError)


@dataclass(frozen=True)
class Task:
    """What is to be done, from the command line and the card."""

    config: TrainConfig
    data: Dataset
    evaluated: Records | None
    folder: Path
    source: TrainingSource
    total_steps: int


def evaluated_records(config: TrainConfig, data: Dataset) -> Records | None:
    """Raises DatasetError where the data set lacks a split that was asked for."""
    split = config.eval_split or (_DEFAULT_EVAL_SPLIT if _DEFAULT_EVAL_SPLIT in data.card.splits else None)
    return None if split is None else data.records(split)


class Loop:
    def __init__(
        self,
        task: Task,
        strategy: Any,
        model: keras.Model,
        state: TrainState,
        progress: Progress,
        checkpoints: Checkpoints,
        writer: Writer,
        report: Report,
        interruption: Interruption | None = None,
    ) -> None:
        self._task = task
        self._strategy = strategy
        self._workers = place_of(strategy).workers
        self._state = state
        self._progress = progress
        self._checkpoints = checkpoints
        self._writer = writer
        self._report = report
        self._steps = Steps(model, state, task.config, strategy, task.source, task.total_steps, self._say)
        forward = make_forward(model, state, task.config)
        self._evaluation = Evaluation(
            forward, strategy, task.config.global_batch, flag="--global_batch", hold=_fits_beside(task)
        )
        self._plain_model: keras.Model | None = None
        self._total = make_total(strategy) if self._workers > 1 else np.asarray
        self._interruption = interruption or Interruption()
        self._evaluated_batches = 0
        self._profile = Profile(task.folder / TENSORBOARD, task.config.profile if self._workers == 1 else 0)
        self._flops = training_flops(model)
        self._peak = peak_of(gpu_names(), task.config.precision, strategy.num_replicas_in_sync)
        self._update_norm = compiled(update_norm, task.config.xla)
        self._step_seconds: list[float] = []

    def _say(self, text: str) -> None:
        self._report.say(text)

    def run(self) -> int:
        """Returns the exit status: 0 at the end of the run, 128 + the signal's number if one stopped it."""
        with self._interruption.held(), self._writer, closing(self._task.source):
            return self._run()

    def _run(self) -> int:
        total = self._task.total_steps
        step = int(self._progress.step.numpy())
        if step >= total and int(self._progress.evaluated_step.numpy()) >= step:
            self._report.say(f"{self._task.folder}: this run of {total:,} steps is finished")
            return 0
        seconds_per_step, fresh = 0.0, True
        sums, since = self._progress.unlogged.numpy(), (step, time.monotonic())
        while True:
            if self._stop_asked():
                return self._stopped(step)
            if self._evaluation_due(step):
                try:
                    self._evaluate(step)
                except Interrupted:
                    return self._stopped(step)
                since = (step, time.monotonic())
            if self._checkpoints.due(step) or step >= total:
                self._checkpoints.save(step)
            if step >= total:
                self._writer.wait()
                self._profile.end()  # of a run with fewer steps than were to be traced
                self._report.say(f"{self._task.folder / MODEL}: the model to use")
                return 0
            if not fresh:
                self._profile.begin()
            count = self._call_steps(step, seconds_per_step)
            started = time.monotonic()
            figures = self._call(step, count)
            taken = (time.monotonic() - started) / count
            seconds_per_step = 0.0 if fresh else taken  # the first call compiles
            self._step_seconds += [taken] * count
            traced = self._profile.made(count)
            if traced is not None:
                self._say(f"{traced}: the trace, of TensorBoard; {TRACE} in it is for Perfetto")
            for number, (loss, accuracy, _) in enumerate(figures, start=step + 1):
                if not np.isfinite(loss):
                    raise self._diverged(number, float(loss))
                sums += (loss, accuracy, 1)
            step += count
            if fresh:
                since, fresh = (step, time.monotonic()), False
            pace = self._images_per_second(step, since, taken)
            self._report.bar(step, sums[0] / sums[2], sums[1] / sums[2], pace)
            if step % self._task.config.log_steps == 0 or step == total:
                mean = {"loss": sums[0] / sums[2], "accuracy": sums[1] / sums[2]}
                self._report.train(step, **mean, **self._figures(step, pace), gradient_norm=float(figures[-1, 2]))
                sums, since = np.zeros(3), (step, time.monotonic())
            self._progress.unlogged.assign(sums)

    def _call_steps(self, step: int, seconds_per_step: float) -> int:
        """How many steps the next call makes: up to whatever comes next, or half a second."""
        config, per_epoch = self._task.config, self._task.source.steps_per_epoch
        limits = [
            CALL_STEPS,
            self._profile.left or CALL_STEPS,
            self._task.total_steps - step,
            per_epoch - step % per_epoch,
            config.log_steps - step % config.log_steps,
        ]
        until_checkpoint = self._checkpoints.steps_until_due(step)
        if until_checkpoint is not None:
            limits.append(until_checkpoint)
        if self._workers > 1:
            limits.append(_WORKERS_CALL_STEPS)
        else:
            limits.append(max(1, int(_CALL_SECONDS / seconds_per_step)) if seconds_per_step else 1)
        return min(limits)

    def _call(self, step: int, count: int) -> np.ndarray:
        try:
            return self._steps(step, count)
        except tf.errors.OpError as error:
            if self._task.source.failure is not None:
                raise self._task.source.failure from error
            if not isinstance(error, _DAMAGED) or (self._workers > 1 and is_lost(error)):
                raise
            raise damaged(self._task.data, self._task.config.split) from error

    def _evaluation_due(self, step: int) -> bool:
        at_end = step >= self._task.total_steps or step % self._task.source.steps_per_epoch == 0
        return at_end and step > int(self._progress.evaluated_step.numpy())

    def _evaluate(self, step: int) -> None:
        """Evaluates, and keeps the model if it is the best so far; without a split to evaluate on, the last is kept."""
        evaluated, best = self._task.evaluated, True
        if evaluated is not None:
            loss, top1, top5, samples = self._sums_over(evaluated)
            best = self._progress.is_best(top1 / samples, loss / samples)
            self._report.evaluation(
                step, evaluated.split, best=best, loss=loss / samples, accuracy=top1 / samples, top5=top5 / samples
            )
        if best:
            self._keep_model()
        self._progress.evaluated_step.assign(step)

    def _sums_over(self, evaluated: Records) -> np.ndarray:
        """float64 [4]: loss, top-1, top-5 and samples, over every sample of the split, whichever worker read it.

        Raises Interrupted between two batches; the evaluation is made again when the run goes on.
        """
        scores = self._evaluation.scores(evaluated, progress=self._between_batches)
        right, in_top = (np.count_nonzero(scores.rank <= top) for top in (1, TOP))
        return self._total(np.array([scores.loss.sum(dtype=np.float64), right, in_top, len(scores)]))

    def _keep_model(self) -> None:
        task = self._task
        if not self._report.writes:
            return
        if self._plain_model is None:
            self._plain_model = build_plain_model(task.config, task.data.card.image_size, len(task.data.classes))
        self._writer.begin(
            "model",
            partial(set_evaluated_weights, self._plain_model, self._state),
            partial(_write_model, self._plain_model, task.folder),
        )

    def _figures(self, step: int, pace: float) -> dict[str, float]:
        """What a line of metrics.jsonl says of the last step, of the pace and of the device."""
        config, state = self._task.config, first_variables(self._state)
        rate = learning_rate(step - 1, config, self._task.total_steps)
        moved = state["weights"], state["first_moments"], state["second_moments"]
        middle, late = np.percentile(self._step_seconds, [50, 95])
        self._step_seconds = []
        figures = {
            "learning_rate": float(rate),
            "update_norm": float(self._update_norm(*moved, tf.constant(step - 1), rate, config.weight_decay)),
            "images_per_second": pace,
            "step_ms_median": round(1e3 * middle, 3),
            "step_ms_95": round(1e3 * late, 3),
        }
        if self._peak is not None:
            figures["share_of_peak"] = round(pace * self._flops / (self._peak * 1e12), 4)
        if has_gpu():
            figures["device_bytes"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return figures

    def _images_per_second(self, step: int, since: tuple[int, float], seconds_per_step: float) -> float:
        steps, seconds = step - since[0], time.monotonic() - since[1]
        pace = steps / seconds if steps and seconds > 0 else 1 / seconds_per_step
        return round(pace * self._task.config.global_batch, 1)

    def _diverged(self, step: int, loss: float) -> UserError:
        self._writer.wait()
        saved = self._checkpoints.saved_step
        good = "there is no checkpoint yet" if saved is None else f"the last good checkpoint is that of step {saved:,}"
        return UserError(
            f"step {step:,}: the loss is {loss}; {good}; lower --learning_rate, and name another --model_dir"
        )

    def _stop_asked(self) -> bool:
        """Whether this process, or any other worker, was asked to stop."""
        return bool(self._total(np.array([float(self._interruption.number is not None)]))[0])

    def _between_batches(self, _: int) -> None:
        self._evaluated_batches += 1
        if self._workers > 1 and self._evaluated_batches % _WORKERS_EVALUATION_BATCHES:
            return
        if self._stop_asked():
            raise Interrupted(self._interruption.number or signal.SIGTERM)

    def _stopped(self, step: int) -> int:
        self._checkpoints.save(step)
        self._writer.wait()
        number = self._interruption.number
        name = name_of(number or signal.SIGTERM)
        self._report.say(f"stopped by {name} after step {step:,}, saved; the same command resumes")
        return EXIT_TERMINATED if number is None else exit_status_of(number)


def _fits_beside(task: Task) -> bool:
    """Whether the split to evaluate on may lie where the training split lies."""
    if task.evaluated is None or task.source.mode == "stream":
        return False
    return fitting_mode(task.evaluated) != "stream"


def _write_model(model: keras.Model, folder: Path) -> None:
    path = folder / MODEL
    with writing(path), replaced(path) as temporary:
        model.save(temporary)
        (folder / CALIBRATION).unlink(missing_ok=True)  # it was of another model
