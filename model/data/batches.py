"""From the card to batches: `(uint8 [B, size, size, 1], int32 [B])`.

Two sources behind one interface: the whole split as uint8 in host memory, or its shards, streamed. The batches of both
are a pure function of (seed, epoch, step): a run resumes in mid-epoch by starting at a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import psutil
import tensorflow as tf

from model.data.examples import READ_BYTES, check_split, load_split, parse_examples
from model.data.examples import damaged as damaged
from schemas.dataset import Card
from schemas.errors import UserError

InputMode = Literal["memory", "stream"]

MEMORY_SHARE = 0.5  # of the memory that is free when a run begins, for the split's images
SHUFFLE_RECORDS = 16_384  # streamed: the reach of the shuffle beyond that of the order of the shards
_CYCLE_SHARDS = 16  # streamed: shards read at once; part of the order, so not left to tf.data
_BLOCK_RECORDS = 32


@dataclass(frozen=True)
class Share:
    """Which part of every global batch this process feeds: `local_replicas` of `replicas`, from `first_replica` on."""

    replicas: int = 1
    first_replica: int = 0
    local_replicas: int = 1


class TrainingSource(Protocol):
    """A split to train on. Sample order depends on the seed and the epoch alone; the remainder is dropped."""

    mode: InputMode
    records: int
    global_batch: int
    steps_per_epoch: int

    def batches(self, first_step: int, last_step: int, share: Share = ...) -> Any:
        """tf.data.Dataset of replica batches, `share.local_replicas` a step, from `first_step` up to `last_step`.

        Replica r of step k gets rows r * B / R … of global batch k, however many replicas there are.
        """
        ...


def training_source(
    card: Card,
    folder: str | Path,
    split: str,
    *,
    mode: Literal["auto", "memory", "stream"],
    global_batch: int,
    seed: int,
) -> TrainingSource:
    """The samples of `split`, checked against the card.

    Raises DatasetError for a data set that isn't whole, UserError where it doesn't fill one batch.
    """
    paths = check_split(card, folder, split)
    records = sum(shard.records for shard in card.split(split).shards)
    if global_batch < 1 or records < global_batch:
        raise UserError(
            f"--global_batch {global_batch:,}: split {split!r} of {folder} has {records:,} samples, expected at least "
            "one batch; choose a smaller one"
        )
    if mode == "auto":
        fits = records * card.image_size**2 <= MEMORY_SHARE * free_memory_bytes()
        mode = "memory" if fits else "stream"
    if mode == "memory":
        images, labels = load_split(card, folder, split)
        return MemorySource(images, labels, global_batch, seed)
    return StreamSource(card, paths, records, global_batch, seed)


class MemorySource:
    """The whole split in host memory; every epoch is a permutation that is computed, not stored."""

    mode: InputMode = "memory"

    def __init__(self, images: np.ndarray, labels: np.ndarray, global_batch: int, seed: int) -> None:
        """`images` as load_split returns them: TensorFlow reads them where they lie."""
        self.records = len(images)
        self.global_batch = global_batch
        self.steps_per_epoch = self.records // global_batch
        self._seed = seed
        with tf.device("CPU:0"):
            # DLPack shares the array's memory; tf.constant would hold the data set twice.
            self._images = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
            self._labels = tf.constant(labels)

    def batches(self, first_step: int, last_step: int, share: Share = Share()) -> Any:
        replica_batch = self.global_batch // share.replicas

        def gather(number: Any) -> tuple[Any, Any]:
            step, replica = number // share.local_replicas, number % share.local_replicas + share.first_replica
            epoch, step = step // self.steps_per_epoch, step % self.steps_per_epoch
            positions = step * self.global_batch + replica * replica_batch + tf.range(replica_batch, dtype=tf.int64)
            seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
            index = tf.random.experimental.index_shuffle(positions, seed, tf.constant(self.records - 1, tf.int64))
            index = tf.ensure_shape(index, [replica_batch])
            return tf.gather(self._images, index), tf.gather(self._labels, index)

        numbers = tf.data.Dataset.range(first_step * share.local_replicas, last_step * share.local_replicas)
        plain = tf.autograph.experimental.do_not_convert(gather)  # looking for what to convert takes 0.1 s
        batches = numbers.map(plain, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        options = _options()
        # Rewriting so short a pipeline gains nothing, and would copy the images: as much memory again, for a while.
        options.experimental_optimization.apply_default_optimizations = False
        return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


class StreamSource:
    """The shards in an order of the epoch's own, several at once, through a shuffle buffer."""

    mode: InputMode = "stream"

    def __init__(self, card: Card, paths: list[str], records: int, global_batch: int, seed: int) -> None:
        self.records = records
        self.global_batch = global_batch
        self.steps_per_epoch = records // global_batch
        self._card = card
        self._paths = paths
        self._seed = seed

    def batches(self, first_step: int, last_step: int, share: Share = Share()) -> Any:
        replica_batch = self.global_batch // share.replicas
        first_epoch, first_in_epoch = divmod(first_step, self.steps_per_epoch)
        last_epoch = -(-last_step // self.steps_per_epoch)

        def of_epoch(epoch: Any) -> Any:
            skipped = tf.where(epoch == first_epoch, first_in_epoch * self.global_batch, 0)
            # Skipping before the parsing: it costs the reading of the records, nothing more.
            used = self._serialized(epoch).take(self.steps_per_epoch * self.global_batch)
            return used.skip(tf.cast(skipped, tf.int64)).batch(replica_batch, drop_remainder=True)

        # string [replica_batch]
        batches = tf.data.Dataset.range(first_epoch, last_epoch).flat_map(of_epoch)
        batches = batches.take((last_step - first_step) * share.replicas)
        if share.local_replicas != share.replicas:
            end = share.first_replica + share.local_replicas
            batches = batches.enumerate().filter(
                lambda number, _: (number % share.replicas >= share.first_replica) & (number % share.replicas < end)
            )
            batches = batches.map(lambda _, batch: batch)
        # Parsing whole batches is ten times faster than parsing records.
        parsed = batches.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return parsed.prefetch(tf.data.AUTOTUNE).with_options(_options())

    def _serialized(self, epoch: Any) -> Any:
        """Every record of the split, as bytes, in the order of `epoch`."""
        shards = len(self._paths)
        paths = tf.constant(self._paths)
        seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        order = tf.data.Dataset.range(shards).map(
            lambda position: paths[
                tf.random.experimental.index_shuffle(position, seed, tf.constant(shards - 1, tf.int64))
            ]
        )
        records = order.interleave(
            lambda path: tf.data.TFRecordDataset(path, buffer_size=READ_BYTES),
            cycle_length=min(shards, _CYCLE_SHARDS),
            block_length=_BLOCK_RECORDS,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        buffer = min(self.records, SHUFFLE_RECORDS)
        return records.shuffle(buffer, seed=self._seed * 1_000_003 + epoch, reshuffle_each_iteration=False)

    def _parse(self, serialized: Any) -> tuple[Any, Any]:
        images, labels, _ = parse_examples(serialized, self._card)
        return tf.ensure_shape(images, [serialized.shape[0], *images.shape[1:]]), labels


def evaluation_batches(card: Card, folder: str | Path, split: str, batch: int, *, multiple: int = 1) -> Any:
    """tf.data.Dataset of (uint8 [B, s, s, 1], int32 [B], bool mask [B], sample_id string [B]), in shard order.

    The last batch is padded, the mask is False there; with `multiple`, whole padded batches make the number of
    batches divisible by it, so that no replica goes without. Raises DatasetError.
    """
    paths = check_split(card, folder, split)
    records = sum(shard.records for shard in card.split(split).shards)

    def pad(serialized: Any) -> tuple[Any, Any, Any, Any]:
        images, labels, sample_ids = parse_examples(serialized, card)
        missing = batch - tf.shape(labels)[0]
        mask = tf.pad(tf.ones_like(labels, tf.bool), [[0, missing]])
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        labels = tf.pad(labels, [[0, missing]])
        sample_ids = tf.concat([sample_ids, tf.fill([missing], "")], 0)
        return (
            tf.ensure_shape(images, [batch, card.image_size, card.image_size, 1]),
            tf.ensure_shape(labels, [batch]),
            tf.ensure_shape(mask, [batch]),
            tf.ensure_shape(sample_ids, [batch]),
        )

    serialized = tf.data.TFRecordDataset(paths, buffer_size=READ_BYTES)
    batches = serialized.batch(batch).map(pad, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    empty = -(-records // batch) % -multiple
    if empty:
        size = card.image_size
        blank = (tf.zeros([batch, size, size, 1], tf.uint8), tf.zeros([batch], tf.int32))
        nothing = (*blank, tf.zeros([batch], tf.bool), tf.fill([batch], ""))
        batches = batches.concatenate(tf.data.Dataset.from_tensors(nothing).repeat(-empty))
    return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


def free_memory_bytes() -> int:
    """What this process may still take: the machine's free memory, or less if a control group says so."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free


def _options() -> Any:
    options = tf.data.Options()
    options.deterministic = True
    # The trainer shards by replica itself; tf.data's guess would deal the records out differently.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
