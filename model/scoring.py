"""A model's answer for every sample of a split: each counted once, whatever the batch and the number of replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from model.errors import TrainError
from model.input import damaged, evaluation_batches
from schemas.dataset import Card

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
    """float32, 0 to 1: of the prediction."""
    rank: np.ndarray
    """int32: of the truth; 1 where the prediction is right."""
    loss: np.ndarray
    """float32: cross entropy of the truth, in nats."""

    def __len__(self) -> int:
        return len(self.label)


def score(model: Any, images: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
    """prediction int32 [B], probability float32 [B], rank int32 [B], loss float32 [B] of uint8 [B, s, s, 1]."""
    logits = model(tf.cast(images, tf.float32) / 255.0, training=False)
    prediction = tf.argmax(logits, axis=1, output_type=tf.int32)
    probability = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    truth = tf.gather(logits, labels, batch_dims=1)[:, None]
    before = tf.range(tf.shape(logits)[1])[None, :] < labels[:, None]
    ahead = (logits > truth) | ((logits == truth) & before)
    rank = 1 + tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return prediction, probability, rank, loss


def score_split(
    model: Any,
    card: Card,
    folder: Path,
    split: str,
    *,
    strategy: Any = None,
    batch: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Every sample of `split`; `batch` is of all replicas together. Raises DatasetError, or TrainError.

    `progress` is told the number of samples done after each batch.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    batch = DEFAULT_REPLICA_BATCH * replicas if batch is None else batch
    if batch < 1 or batch % replicas:
        raise TrainError(f"--batch {batch}: expected a multiple of the {replicas} replicas, 1 or more")
    replica_batch = batch // replicas

    def on_replica(images: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
        return score(model, images, labels)

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
        raise TrainError(f"--batch {batch}: the device's memory doesn't hold it; choose a smaller one") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise damaged(folder, split, done) from error
    if done != records:
        raise damaged(folder, split, done)
    sample_id, label, prediction, probability, rank, loss = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    if not np.isfinite(loss).all():
        raise TrainError("the model's answers aren't finite numbers; its training has diverged, train again")
    names = np.array([name.decode() for name in sample_id], object)
    return Scores(names, label, prediction, probability, rank, loss)
