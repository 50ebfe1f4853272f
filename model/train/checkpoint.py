"""Checkpoints: everything a run needs to go on at the exact step, as if it had never stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.network.devices import ALONE, Place
from model.train.failures import writing
from model.train.options import TrainConfig
from model.train.run_folder import CHECKPOINTS
from model.train.steps.state import STATE_FIELDS, TrainState, first_copy
from schemas.errors import UserError

_SECONDS_BETWEEN = 300.0
_WORKERS_STEPS_BETWEEN = 500
_KEPT = 2


class Progress(tf.Module):
    """How far a run has come. Its randomness is a function of (seed, step), so this is all of it."""

    def __init__(self, seed: int) -> None:
        super().__init__(name="progress")
        with tf.device("CPU:0"):
            self.seed = tf.Variable(seed, dtype=tf.int64, trainable=False)
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.evaluated_step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.best_accuracy = tf.Variable(-1.0, dtype=tf.float64, trainable=False)
            self.best_loss = tf.Variable(np.inf, dtype=tf.float64, trainable=False)
            self.unlogged = tf.Variable([0.0, 0.0, 0.0], dtype=tf.float64, trainable=False)
            """Sums of loss and accuracy, and the steps, since the last line of metrics.jsonl."""

    def is_best(self, accuracy: float, loss: float) -> bool:
        """Whether a model with these figures is better than any before; it counts as one of those from now on.

        Of models that are right equally often the one with the smaller loss: its probabilities are worth more.
        """
        best = float(self.best_accuracy.numpy()), -float(self.best_loss.numpy())
        if (accuracy, -loss) <= best:
            return False
        self.best_accuracy.assign(accuracy)
        self.best_loss.assign(loss)
        return True


class Writer:
    """Writes files beside the steps, one after the other. What failed is raised by a later call, `wait` at the latest.

    As a context it waits for all of them at its end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._begun: dict[str, Future[None]] = {}

    def begin(self, what: str, copy: Callable[[], None], write: Callable[[], None]) -> None:
        """`copy` now, once an earlier `write` of the same has read the last copy; `write` beside the steps."""
        for one, future in list(self._begun.items()):
            if one == what or future.done():
                self._begun.pop(one).result()
        copy()
        self._begun[what] = self._thread.submit(write)

    def wait(self) -> None:
        while self._begun:
            self._begun.popitem()[1].result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()


class Checkpoints:
    """Saves and restores a run; of several workers one saves."""

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        progress: Progress,
        config: TrainConfig,
        writer: Writer,
        place: Place = ALONE,
    ) -> None:
        self._progress = progress
        # The clocks of several workers can't agree on a step.
        self._every_steps = config.checkpoint_steps or (_WORKERS_STEPS_BETWEEN if place.workers > 1 else None)
        self._checkpoint = tf.train.Checkpoint(state=state, progress=progress)
        self._state, self._copies = state, tf.Module(name="train_state")
        self._progress_copy = Progress(0)
        copied = tf.train.Checkpoint(state=self._copies, progress=self._progress_copy)
        self._manager = tf.train.CheckpointManager(copied, str(folder / CHECKPOINTS), max_to_keep=_KEPT)
        self._writes = place.writes
        self._writer = writer
        self.saved_step: int | None = None
        """The step of the last checkpoint that was begun, or None if there is none."""
        self._saved_at = time.monotonic()

    def restore(self) -> bool:
        """Goes back to the last checkpoint; False if there is none. Raises UserError for a damaged one."""
        path = self._manager.latest_checkpoint
        if path is None:
            return False
        try:
            self._restore(path)
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            first_line = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{path}: the checkpoint can't be read ({first_line}); delete its files and its line in "
                f"{Path(path).parent / 'checkpoint'} to go on from the one before; if another release began this run, "
                "name another --model_dir"
            ) from error
        self.saved_step = int(self._progress.step.numpy())
        return True

    def _restore(self, path: str) -> None:
        best_loss = self._progress.best_loss
        if not any(name.startswith("progress/best_loss/") for name, _ in tf.train.list_variables(path)):
            del self._progress.best_loss  # of a release that compared accuracies alone: its loss isn't known
        try:
            self._checkpoint.restore(path).assert_consumed()
        finally:
            self._progress.best_loss = best_loss

    def due(self, step: int) -> bool:
        if step == self.saved_step:
            return False
        if self._every_steps is not None:
            return step > 0 and step % self._every_steps == 0
        return time.monotonic() - self._saved_at >= _SECONDS_BETWEEN

    def steps_until_due(self, step: int) -> int | None:
        """None where the clock decides."""
        return None if self._every_steps is None else self._every_steps - step % self._every_steps

    def save(self, step: int) -> None:
        """Copies the state, and writes it beside the steps. Raises UserError where the disk was full before."""
        if step == self.saved_step:
            return
        self._progress.step.assign(step)
        if self._writes:
            self._writer.begin("checkpoint", self._copy, partial(self._write, step))
        self.saved_step = step
        self._saved_at = time.monotonic()

    def _copy(self) -> None:
        with tf.device("CPU:0"):
            for name in STATE_FIELDS:
                values = [first_copy(variable) for variable in getattr(self._state, name, [])]
                if not hasattr(self._copies, name):
                    setattr(self._copies, name, [tf.Variable(value, trainable=False) for value in values])
                    continue
                for variable, value in zip(getattr(self._copies, name), values, strict=True):
                    variable.assign(value)
            for variable, value in zip(self._progress_copy.variables, self._progress.variables, strict=True):
                variable.assign(value)

    def _write(self, step: int) -> None:
        with writing(self._manager.directory):
            self._manager.save(checkpoint_number=step)


def last_step(folder: Path) -> int:
    """The step of a run's last checkpoint, 0 without one. Touches no device."""
    path = tf.train.latest_checkpoint(str(folder / CHECKPOINTS))
    number = (path or "").rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
