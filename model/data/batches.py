"""From the card to batches: for each step a tuple with one part, (uint8 [B, s, s, 1], int32 [B]), per replica here.

Three sources behind one interface: the whole split as uint8 on the devices, or in host memory, in the same order; or
its shards, streamed. Their batches are a pure function of (seed, epoch, step): a run resumes in mid-epoch by starting
at a number. A part is made once, for its replica, which takes it by its number: nothing is cut up or put together on
the way. Of several workers each draws its part of every batch from a share of the split that is its own, and no other
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from model.data.examples import load_split
from model.data.source import WHOLE, Share, TrainingSource, in_this_order
from model.data.stream import StreamSource
from pipeline.reader.records import Records
from schemas.errors import UserError

MEMORY_SHARE = 0.5  # of the memory that is free when a run begins, for the split's images
DEVICE_SHARE = 0.25  # of a device's memory, of which a step of HWDB's size takes a half


def share_of_worker(records: Records, worker: int, workers: int) -> Records:
    """What one of so many workers trains on: shares are equal, so up to workers - 1 records are nobody's."""
    first = len(records) * worker // workers
    return records.between(first, first + len(records) // workers)


def input_mode(records: Records, *, mode: str, global_batch: int, device_bytes: int = 0, workers: int = 1) -> str:
    """device, memory or stream: `mode`, or for auto what fits. Touches no device of TensorFlow's.

    `device_bytes` is the memory of each device that has one of its own, 0 where none has. A worker holds its share.
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
        mode = fitting_mode(records, device_bytes, workers)
    return mode


def fitting_mode(records: Records, device_bytes: int = 0, workers: int = 1) -> str:
    size = len(records) // workers * records.data.card.image_size**2
    if size > MEMORY_SHARE * free_memory_bytes():
        return "stream"
    return "device" if size <= DEVICE_SHARE * device_bytes else "memory"


def training_source(
    records: Records, *, mode: str, global_batch: int, seed: int, share: Share = WHOLE
) -> TrainingSource:
    """The records to train on; `mode` is device, memory, stream, or auto for what fits.

    Raises DatasetError for a damaged shard, UserError where they don't fill one batch.
    """
    mode = input_mode(records, mode=mode, global_batch=global_batch, workers=share.workers)
    own, batch = share_of_worker(records, share.worker, share.workers), global_batch // share.workers
    if mode != "stream":
        source = HeldSource if mode == "device" else MemorySource
        return source(*load_split(own), batch, seed)
    return StreamSource(own, batch, seed)


class MemorySource(TrainingSource):
    """The whole split in host memory; every epoch is a permutation that is computed, not stored."""

    mode = "memory"

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch: int, seed: int) -> None:
        """`images` as load_split returns them: TensorFlow reads them where they lie."""
        super().__init__(len(images), batch, seed)
        with tf.device("CPU:0"):
            # DLPack shares the array's memory; tf.constant would hold the data set twice.
            self._images = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
            self._labels = tf.constant(labels)

    def batches(self, first_step: int, last_step: int, replicas: int = 1) -> Any:
        def gather(index: Any) -> tuple[Any, Any]:
            return tf.gather(self._images, index), tf.gather(self._labels, index)

        return self._mapped(first_step, last_step, replicas, gather)

    def _mapped(self, first_step: int, last_step: int, replicas: int, of_rows: Callable[[Any], Any]) -> Any:
        """What `of_rows` makes of the row numbers, int64 [B / R], of each replica here."""
        replica_batch = self.batch // replicas

        def parts(number: Any) -> tuple[Any, ...]:
            epoch, step = number // self.steps_per_epoch, number % self.steps_per_epoch
            seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
            firsts = [step * self.batch + replica * replica_batch for replica in range(replicas)]
            return tuple(of_rows(rows(seed, first)) for first in firsts)

        def rows(seed: Any, first: Any) -> Any:
            positions = first + tf.range(replica_batch, dtype=tf.int64)
            index = tf.random.experimental.index_shuffle(positions, seed, tf.constant(self.records - 1, tf.int64))
            return tf.ensure_shape(index, [replica_batch])

        plain = tf.autograph.experimental.do_not_convert(parts)  # looking for what to convert takes 0.1 s
        steps = tf.data.Dataset.range(first_step, last_step)
        batches = steps.map(plain, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        options = in_this_order()
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

    def rows(self, first_step: int, last_step: int, replicas: int = 1) -> Any:
        """As `batches`, with int64 [B / R] row numbers in place of each part."""
        return self._mapped(first_step, last_step, replicas, lambda index: index)


def evaluation_batches(records: Records, replica_batch: int, share: Share = WHOLE) -> Iterator[tuple[Any, ...]]:
    """Every record of this worker's stretch once, in order: for each step a tuple with a part for each replica here.

    A part is (uint8 [B, s, s, 1], int32 [B], bool mask [B], int64 positions [B]), the positions among all records. The
    last ones are padded, the mask is False there, so that every part has the same shape and no replica goes without.
    Raises DatasetError.
    """
    size, count, local = records.data.card.image_size, len(records), len(share.local)
    steps = -(-count // (replica_batch * share.replicas))
    begin = min(share.worker * steps * replica_batch * local, count)
    own = records.between(begin, min(begin + steps * replica_batch * local, count))

    def part(first: int) -> tuple[Any, ...]:
        positions = np.arange(first, min(first + replica_batch, len(own)))
        images = np.zeros((replica_batch, size, size), np.uint8)
        labels = np.zeros(replica_batch, np.int32)
        _, labels[: len(positions)] = own.read(positions, images[: len(positions)])
        places = np.arange(first, first + replica_batch)
        with tf.device("CPU:0"):
            return tuple(map(tf.constant, (images[..., None], labels, places < len(own), begin + places)))

    def step(number: int) -> tuple[Any, ...]:
        return tuple(part((number * local + replica) * replica_batch) for replica in range(local))

    with ThreadPoolExecutor(1) as pool:  # reads the next step while this one is computed
        coming = None
        for number in range(steps):
            coming, ready = pool.submit(step, number), coming
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
