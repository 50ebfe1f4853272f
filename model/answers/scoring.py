"""A model's answer for every sample of a split: each counted once, whatever the batch and the number of replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from model.answers.calibration import CALIBRATION, FITTED_SAMPLES, Calibration, fit, write_calibration
from model.answers.run import Run
from model.data.batches import damaged, evaluation_batches
from schemas.dataset import Card
from schemas.errors import UserError, explained

DEFAULT_REPLICA_BATCH = 256


@dataclass(frozen=True)
class Scores:
    """One entry for each sample, in shard order. Every array is [n]."""

    sample_id: np.ndarray
    """object: str, the manifest's."""
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


def score(model: Any, images: Any, labels: Any, temperature: float) -> tuple[Any, ...]:
    """Scores' columns from `prediction` on, [B] each, of uint8 [B, s, s, 1] and int32 [B]."""
    logits = model(tf.cast(images, tf.float32) / 255.0, training=False)
    prediction = tf.argmax(logits, axis=1, output_type=tf.int32)
    raw_probability = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    probability = tf.reduce_max(tf.nn.softmax(logits / temperature), axis=1)
    truth = tf.gather(logits, labels, batch_dims=1)[:, None]
    before = tf.range(tf.shape(logits)[1])[None, :] < labels[:, None]
    ahead = (logits > truth) | ((logits == truth) & before)
    rank = 1 + tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return prediction, probability, raw_probability, rank, loss


def score_split(
    model: Any,
    card: Card,
    folder: Path,
    split: str,
    *,
    temperature: float = 1.0,
    strategy: Any = None,
    batch: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Every sample of `split`; `batch` is of all replicas together. Raises DatasetError, or UserError.

    `progress` is told the number of samples done after each batch.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    batch = DEFAULT_REPLICA_BATCH * replicas if batch is None else batch
    if batch < 1 or batch % replicas:
        raise UserError(f"--batch {batch}: expected a multiple of the {replicas} replicas, 1 or more")
    replica_batch = batch // replicas

    def on_replica(images: Any, labels: Any) -> tuple[Any, ...]:
        return score(model, images, labels, temperature)

    on_replicas = tf.function(lambda images, labels: strategy.run(on_replica, args=(images, labels)))

    def dealt(values: Any) -> Any:
        def part(context: Any) -> Any:
            start = context.replica_id_in_sync_group * replica_batch
            return values[start : start + replica_batch]

        return strategy.experimental_distribute_values_from_function(part)

    records = sum(shard.records for shard in card.split(split).shards)
    parts: list[tuple[np.ndarray, ...]] = []
    done = 0
    try:
        # Every batch has the same shape, the last one padded: no replica ever goes without.
        for images, labels, mask, sample_ids in evaluation_batches(card, folder, split, batch):
            found = on_replicas(dealt(images), dealt(labels))
            kept = mask.numpy()
            columns = [
                np.concatenate([p.numpy() for p in strategy.experimental_local_results(column)]) for column in found
            ]
            parts.append(tuple(column[kept] for column in (sample_ids.numpy(), labels.numpy(), *columns)))
            done += int(kept.sum())
            progress(done)
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(f"--batch {batch}: the device's memory doesn't hold it; choose a smaller one") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise damaged(folder, split, done) from error
    if done != records:
        raise damaged(folder, split, done)
    sample_id, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = np.array([name.decode() for name in sample_id], object)
    scores = Scores(names, *columns)
    if not np.isfinite(scores.loss).all():
        raise UserError("the model's answers aren't finite numbers; its training has diverged, train again")
    return scores


def logits_of_split(model: Any, card: Card, folder: Path, split: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, classes] and int32 [n] of a split's first samples, `most` of them. Raises UserError.

    A split's order is that of a hash, so its first samples are a fair choice.
    """
    answer = tf.function(lambda images: model(tf.cast(images, tf.float32) / 255.0, training=False))
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    done = 0
    try:
        for images, labels, mask, _ in evaluation_batches(card, folder, split, DEFAULT_REPLICA_BATCH):
            kept = mask.numpy()
            parts.append((answer(images).numpy()[kept], labels.numpy()[kept]))
            done += int(kept.sum())
            if done >= most:
                break
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise damaged(folder, split, done) from error
    logits, labels = (np.concatenate(column)[:most] for column in zip(*parts, strict=True))
    return logits, labels


def calibrate_run(run: Run, model: Any, card: Card, data: Path, split: str) -> Calibration:
    """Fits temperature and threshold to a split; writes them to the run's folder. Raises UserError, DatasetError."""
    found = fit(*logits_of_split(model, card, data, split, FITTED_SAMPLES), split)
    with explained(f"write {run.folder / CALIBRATION}"):
        write_calibration(run.folder, found)
    return found
