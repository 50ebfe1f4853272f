"""A model's answer for every sample of a split: each counted once, whatever the batch and the number of replicas.

The one evaluation there is: the training loop, model.evaluate, the report and the calibration differ in the forward
function that they give it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from model.answers.calibration import CALIBRATION, FITTED_SAMPLES, Calibration, fit, write_calibration
from model.answers.run import Run
from model.data.batches import evaluation_batches
from model.data.source import Share
from model.network.devices import has_gpu, own_part, place_of
from model.network.vgg import normalize
from pipeline.reader.records import Records
from schemas.errors import UserError, explained

DEFAULT_REPLICA_BATCH, CPU_BATCH = 256, 64
"""Samples at once on a GPU, and on processors: a batch on processors is seconds, between which a signal is heard."""
_RUNNING = 4  # batches that a device may be behind


@dataclass(frozen=True)
class Scores:
    """One entry for each sample, in shard order. Every array is [n]."""

    position: np.ndarray
    """int64: among the records."""
    label: np.ndarray
    """int32."""
    prediction: np.ndarray
    """int32: the label found most likely."""
    probability: np.ndarray
    """float32, 0 to 1: of the prediction, the logits divided by the run's temperature."""
    raw_probability: np.ndarray
    """float32, 0 to 1: the same without the temperature."""
    rank: np.ndarray
    """int32: of the truth; 1 where the prediction is right."""
    loss: np.ndarray
    """float32: cross entropy of the truth, in nats, without the temperature."""

    def __len__(self) -> int:
        return len(self.label)


def rank_of(logits: Any, labels: Any) -> Any:
    """int32 [B]: how many labels come before the truth, and 1; of equal logits the smaller label comes first."""
    truth = tf.gather(logits, labels, batch_dims=1)[:, None]
    before = tf.range(tf.shape(logits)[1])[None, :] < labels[:, None]
    return 1 + tf.reduce_sum(tf.cast((logits > truth) | ((logits == truth) & before), tf.int32), axis=1)


def cross_entropy(logits: Any, labels: Any, smoothing: Any = 0.0) -> Any:
    """float32 [B], without a one-hot matrix: smoothing, one number or [B], adds the mean over all classes."""
    logits = tf.cast(logits, tf.float32)
    log_sum = tf.reduce_logsumexp(logits, 1)
    truth = log_sum - tf.gather(logits, labels, batch_dims=1)
    if isinstance(smoothing, float) and not smoothing:
        return truth
    return (1 - smoothing) * truth + smoothing * (log_sum - tf.reduce_mean(logits, 1))


def score(logits: Any, labels: Any, temperature: Any) -> tuple[Any, ...]:
    """Scores' columns from `prediction` on, [B] each, of float32 [B, classes] and int32 [B]."""
    prediction = tf.argmax(logits, axis=1, output_type=tf.int32)
    raw_probability = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    probability = tf.reduce_max(tf.nn.softmax(logits / temperature), axis=1)
    return prediction, probability, raw_probability, rank_of(logits, labels), cross_entropy(logits, labels)


def forward_of(model: Any) -> Callable[[Any], Any]:
    """What Evaluation takes, of a Keras model."""
    return lambda images: model(normalize(images), training=False)


def share_of(strategy: Any) -> Share:
    """What this process feeds: the replicas of its own."""
    place, replicas = place_of(strategy), strategy.num_replicas_in_sync
    local = replicas // place.workers
    return Share(replicas, range(place.worker * local, (place.worker + 1) * local))


class Evaluation:
    """Reads splits with a forward function, uint8 [B, s, s, 1] to float32 logits [B, classes], on every replica.

    `batch` is of all replicas together; with `hold` a split stays on the devices once it was read. Of several workers
    each sees its own share of a split, and what is asked of one has to be asked of all. Raises UserError for a batch
    that the replicas don't divide, with `flag` as its name.
    """

    def __init__(
        self,
        forward: Callable[[Any], Any],
        strategy: Any = None,
        batch: int | None = None,
        *,
        flag: str = "",
        hold: bool = False,
    ) -> None:
        self._strategy = strategy = strategy or tf.distribute.get_strategy()
        self._share = share = share_of(strategy)
        self._batch = (DEFAULT_REPLICA_BATCH if has_gpu() else CPU_BATCH) * share.replicas if batch is None else batch
        self._flag = flag
        self._hold = hold
        self._held: dict[Records, list[Any]] = {}
        if self._batch < 1 or self._batch % share.replicas:
            raise UserError(f"{flag} {batch}: expected a multiple of the {share.replicas} replicas, 1 or more")

        def logits_of(parts: Any) -> tuple[Any, ...]:
            images, *_ = own_part(parts)
            return (forward(images),)

        def scores_of(parts: Any, temperature: Any) -> tuple[Any, ...]:
            images, labels, *_ = own_part(parts)
            return score(forward(images), labels, temperature)

        self._logits = tf.function(lambda *arguments: strategy.run(logits_of, arguments))
        self._scores = tf.function(lambda *arguments: strategy.run(scores_of, arguments))

    def scores(
        self, records: Records, temperature: float = 1.0, progress: Callable[[int], None] = lambda _: None
    ) -> Scores:
        """Every sample of this worker's share of `records`. Raises DatasetError, or UserError.

        `progress` is told the number of samples done after each batch.
        """
        divisor = tf.constant(temperature, tf.float32)
        columns = self._columns(lambda parts: self._scores(parts, divisor), records, progress=progress)
        scores = Scores(*columns)
        if not np.isfinite(scores.loss).all():
            raise UserError("the model's answers aren't finite numbers; its training has diverged, train again")
        return scores

    def logits(self, records: Records, most: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 [n, classes] and int32 [n] of the first records, `most` of them. Raises UserError.

        A split's order is that of a hash, so its first samples are a fair choice.
        """
        _, labels, logits = self._columns(self._logits, records, most=most)
        return logits[:most], labels[:most]

    def _columns(
        self,
        function: Callable[[Any], Any],
        records: Records,
        *,
        most: int | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[np.ndarray]:
        """[n, …] each: position, label, and what `function` says of the parts of a step, without padding."""
        found: list[list[np.ndarray]] = []
        running: deque[list[Any]] = deque()
        done, samples, replicas = 0, len(records), self._share.replicas
        batch = min(self._batch, -(-samples // replicas) * replicas)  # the rest would be padding
        try:
            for parts in self._batches(records, batch // replicas):
                local = [self._strategy.experimental_local_results(column) for column in function(parts)]
                for (_, labels, mask, positions), *own in zip(parts, *local, strict=True):
                    running.append([mask.numpy(), positions, labels, *own])
                    done += int(np.count_nonzero(running[-1][0]))
                while len(running) > _RUNNING * len(parts):  # nobody waits for a device that has nothing else to do
                    found.append(_kept(running.popleft()))
                progress(done)
                if most is not None and done >= most:
                    break
            found += map(_kept, running)
        except (tf.errors.OpError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            what = f"{self._flag} {batch:,}" if self._flag else f"{batch:,} samples at once"
            advice = f"choose a smaller {self._flag}, or" if self._flag else ""
            raise UserError(f"{what}: more than the device's memory holds; {advice} end what else uses it") from error
        return [np.concatenate(column) for column in zip(*found, strict=True)]

    def _batches(self, records: Records, replica_batch: int) -> Any:
        if records in self._held:
            return self._held[records]
        batches: Any = evaluation_batches(records, replica_batch, self._share)
        if self._hold:
            batches = self._held[records] = [self._on_devices(parts) for parts in batches]
        return batches

    def _on_devices(self, parts: Any) -> Any:
        held = []
        for (images, *others), device in zip(parts, self._strategy.extended.worker_devices, strict=True):
            with tf.device(device):
                held.append((tf.identity(images), *others))
        return tuple(held)


def _kept(part: list[Any]) -> list[np.ndarray]:
    """The rows of columns, of which the mask comes first, that aren't padding."""
    kept, *columns = part
    return [column.numpy()[kept] for column in columns]


_OUT_OF_MEMORY = ("out of memory", "oom when", "failed to allocate", "bad_alloc", "out_of_memory", "dst tensor is not")
"""What TensorFlow says where it doesn't say RESOURCE_EXHAUSTED, the last when a GPU has no room for a tensor."""


def is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, tf.errors.ResourceExhaustedError | MemoryError) or any(
        words in text for words in _OUT_OF_MEMORY
    )


def calibrate_run(run: Run, evaluation: Evaluation, records: Records) -> Calibration:
    """Fits temperature and threshold to samples; writes them to the run's folder. Raises UserError, DatasetError."""
    logits, labels = evaluation.logits(records, FITTED_SAMPLES)
    writers = records.rows(["writer"])["writer"].to_numpy()[: len(labels)]
    found = fit(logits, labels, writers.astype(str), records.split)
    with explained(f"write {run.folder / CALIBRATION}"):
        write_calibration(run.folder, found)
    return found
