"""From the card to batches: for each step a tuple with one part, (uint8 [B, s, s, 1], int32 [B]), per local replica.

Three sources behind one interface: the whole split as uint8 on the devices, or in host memory, in the same order; or
its shards, streamed. Their batches are a pure function of (seed, epoch, step): a run resumes in mid-epoch by starting
at a number. A part is made once, for its replica, which takes it by its number: nothing is cut up or put together on
the way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import tensorflow as tf

from model.data.examples import READ_BYTES, load_split, parse_examples
from pipeline.reader.records import Records
from schemas.errors import UserError

MEMORY_SHARE = 0.5  # of the memory that is free when a run begins, for the split's images
DEVICE_SHARE = 0.25  # of a device's memory, of which a step of HWDB's size takes a half
SHUFFLE_RECORDS = 16_384  # streamed: the reach of the shuffle beyond that of the order of the shards
_CYCLE_SHARDS = 16  # streamed: shards read at once; part of the order, so not left to tf.data
_BLOCK_RECORDS = 32


@dataclass(frozen=True)
class Share:
    """Which part of every global batch this process feeds."""

    replicas: int = 1
    """Of all processes."""
    local: range = range(1)
    """The numbers of those of this process."""


class TrainingSource(ABC):
    """A split to train on. Sample order depends on the seed and the epoch alone; the remainder is dropped."""

    mode: ClassVar[str]

    def __init__(self, records: int, global_batch: int, seed: int) -> None:
        self.records = records
        self.global_batch = global_batch
        self.steps_per_epoch = records // global_batch
        self._seed = seed

    @abstractmethod
    def batches(self, first_step: int, last_step: int, share: Share = ...) -> Any:
        """tf.data.Dataset with a tuple of a part for each local replica a step, from `first_step` up to `last_step`.

        Replica r of step k gets rows r * B / R … of global batch k, however many replicas there are.
        """


def input_mode(records: Records, *, mode: str, global_batch: int, device_bytes: int = 0) -> str:
    """device, memory or stream: `mode`, or for auto what fits. Touches no device of TensorFlow's.

    `device_bytes` is the memory of each device that has one of its own, 0 where none has.
    Raises UserError where the records don't fill one batch.
    """
    count = len(records)
    if global_batch < 1 or count < global_batch:
        chosen = "" if records.where is None else f", where {records.where}"
        raise UserError(
            f"--global_batch {global_batch:,}: split {records.split!r} of {records.data.folder} has {count:,} samples"
            f"{chosen}, expected at least one batch; choose a smaller one"
        )
    if mode == "auto":
        mode = fitting_mode(records, device_bytes)
    if mode == "stream" and records.data.is_remote:
        raise UserError(
            f"--input stream: expected shards on this machine, found {records.data.folder}; copy them here, choose a "
            "part with --where, or take --input memory"
        )
    return mode


def fitting_mode(records: Records, device_bytes: int = 0) -> str:
    size = len(records) * records.data.card.image_size**2
    if size > MEMORY_SHARE * free_memory_bytes():
        return "stream"
    return "device" if size <= DEVICE_SHARE * device_bytes else "memory"


def training_source(records: Records, *, mode: str, global_batch: int, seed: int) -> TrainingSource:
    """The records to train on; `mode` is device, memory, stream, or auto for what fits.

    Raises DatasetError for a damaged shard, UserError where they don't fill one batch.
    """
    mode = input_mode(records, mode=mode, global_batch=global_batch)
    if mode != "stream":
        source = HeldSource if mode == "device" else MemorySource
        return source(*load_split(records), global_batch, seed)
    return StreamSource(records, global_batch, seed)


class MemorySource(TrainingSource):
    """The whole split in host memory; every epoch is a permutation that is computed, not stored."""

    mode = "memory"

    def __init__(self, images: np.ndarray, labels: np.ndarray, global_batch: int, seed: int) -> None:
        """`images` as load_split returns them: TensorFlow reads them where they lie."""
        super().__init__(len(images), global_batch, seed)
        with tf.device("CPU:0"):
            # DLPack shares the array's memory; tf.constant would hold the data set twice.
            self._images = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
            self._labels = tf.constant(labels)

    def batches(self, first_step: int, last_step: int, share: Share = Share()) -> Any:
        def gather(index: Any) -> tuple[Any, Any]:
            return tf.gather(self._images, index), tf.gather(self._labels, index)

        return self._mapped(first_step, last_step, share, gather)

    def _mapped(self, first_step: int, last_step: int, share: Share, of_rows: Callable[[Any], Any]) -> Any:
        """What `of_rows` makes of the row numbers, int64 [B / R], of each local replica."""
        replica_batch = self.global_batch // share.replicas

        def parts(number: Any) -> tuple[Any, ...]:
            epoch, step = number // self.steps_per_epoch, number % self.steps_per_epoch
            seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
            firsts = [step * self.global_batch + replica * replica_batch for replica in share.local]
            return tuple(of_rows(rows(seed, first)) for first in firsts)

        def rows(seed: Any, first: Any) -> Any:
            positions = first + tf.range(replica_batch, dtype=tf.int64)
            index = tf.random.experimental.index_shuffle(positions, seed, tf.constant(self.records - 1, tf.int64))
            return tf.ensure_shape(index, [replica_batch])

        plain = tf.autograph.experimental.do_not_convert(parts)  # looking for what to convert takes 0.1 s
        steps = tf.data.Dataset.range(first_step, last_step)
        batches = steps.map(plain, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        options = _options()
        # Rewriting so short a pipeline gains nothing, and would copy the images: as much memory again, for a while.
        options.experimental_optimization.apply_default_optimizations = False
        return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


class HeldSource(MemorySource):
    """The whole split on every device: a step takes from it the rows that its batch has in memory mode."""

    mode = "device"

    def on(self, device: str) -> tuple[Any, Any]:
        """Images and labels, int64, on a device. On the processor's they aren't copied."""
        with tf.device(device):
            return tf.identity(self._images), tf.cast(self._labels, tf.int64)

    def rows(self, first_step: int, last_step: int, share: Share = Share()) -> Any:
        """As `batches`, with int64 [B / R] row numbers in place of each part."""
        return self._mapped(first_step, last_step, share, lambda index: index)


class StreamSource(TrainingSource):
    """The shards in an order of the epoch's own, several at once, through a shuffle buffer."""

    mode = "stream"

    def __init__(self, records: Records, global_batch: int, seed: int) -> None:
        super().__init__(len(records), global_batch, seed)
        self._card = records.data.card
        self._paths = records.paths
        self._chosen = None if records.where is None else records.chosen()

    def batches(self, first_step: int, last_step: int, share: Share = Share()) -> Any:
        first_epoch, first_in_epoch = divmod(first_step, self.steps_per_epoch)
        last_epoch = -(-last_step // self.steps_per_epoch)

        def of_epoch(epoch: Any) -> Any:
            skipped = tf.where(epoch == first_epoch, first_in_epoch * self.global_batch, 0)
            # Skipping before the parsing: it costs the reading of the records, nothing more.
            used = self._serialized(epoch).skip(tf.cast(skipped, tf.int64))
            return used.batch(self.global_batch, drop_remainder=True)

        def parse(serialized: Any) -> tuple[tuple[Any, Any], ...]:
            # Parsing whole batches is ten times faster than parsing records.
            parts = tf.split(serialized, share.replicas)
            return tuple(parse_examples(parts[replica], self._card) for replica in share.local)

        # string [global_batch]
        batches = tf.data.Dataset.range(first_epoch, last_epoch).flat_map(of_epoch).take(last_step - first_step)
        parsed = batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return parsed.prefetch(tf.data.AUTOTUNE).with_options(_options())

    def _serialized(self, epoch: Any) -> Any:
        """Every record of the split, as bytes, in the order of `epoch`."""
        shards = len(self._paths)
        paths = tf.constant(self._paths)
        seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        order = tf.data.Dataset.range(shards).map(
            lambda position: tf.random.experimental.index_shuffle(position, seed, tf.constant(shards - 1, tf.int64))
        )

        def of_shard(number: Any) -> Any:
            records = tf.data.TFRecordDataset(paths[number], buffer_size=READ_BYTES)
            if self._chosen is None:
                return records
            chosen = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(self._chosen)[number])
            return tf.data.Dataset.zip((records, chosen)).filter(lambda _, it: it).map(lambda record, _: record)

        records = order.interleave(
            of_shard,
            cycle_length=min(shards, _CYCLE_SHARDS),
            block_length=_BLOCK_RECORDS,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        buffer = min(self.records, SHUFFLE_RECORDS)
        return records.shuffle(buffer, seed=self._seed * 1_000_003 + epoch, reshuffle_each_iteration=False)


def evaluation_batches(records: Records, replica_batch: int, share: Share = Share()) -> Iterator[tuple[Any, ...]]:
    """Every record once, in order: for each step a tuple with a part for each local replica.

    A part is (uint8 [B, s, s, 1], int32 [B], bool mask [B], int64 positions [B]). The last ones are padded, the mask
    is False there, so that every part has the same shape and no replica goes without. Raises DatasetError.
    """
    size, count = records.data.card.image_size, len(records)

    def part(first: int) -> tuple[Any, ...]:
        positions = np.arange(first, min(first + replica_batch, count))
        images = np.zeros((replica_batch, size, size), np.uint8)
        labels = np.zeros(replica_batch, np.int32)
        _, labels[: len(positions)] = records.read(positions, images[: len(positions)])
        places = np.arange(first, first + replica_batch)
        with tf.device("CPU:0"):
            return tuple(map(tf.constant, (images[..., None], labels, places < count, places)))

    def step(first: int) -> tuple[Any, ...]:
        return tuple(part(first + replica * replica_batch) for replica in share.local)

    with ThreadPoolExecutor(1) as pool:  # reads the next step while this one is computed
        coming = None
        for first in range(0, count, replica_batch * share.replicas):
            coming, ready = pool.submit(step, first), coming
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


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
