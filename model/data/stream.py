"""Batches out of shards as they lie, on a disk or in a store: for splits that no memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from model.data.examples import READ_BYTES, parse_examples
from model.data.fetching import AHEAD_SHARDS, Fetching
from model.data.source import TrainingSource, in_this_order
from pipeline.reader.records import Records

SHUFFLE_RECORDS = 16_384  # the reach of the shuffle beyond that of the order of the shards
_CYCLE_SHARDS = 16  # read at once; part of the order, so not left to tf.data
_BLOCK_RECORDS = 32


class StreamSource(TrainingSource):
    """The shards in an order of the epoch's own, several at once, through a shuffle buffer.

    Those of a store come by way of the cache, in the order in which they are needed. Where a run goes on in mid-epoch
    only those records are fetched that are still to come.
    """

    mode = "stream"

    def __init__(self, records: Records, batch: int, seed: int) -> None:
        super().__init__(len(records), batch, seed)
        self._records, self._card = records, records.data.card
        read = [(number, mask) for number, mask in enumerate(records.chosen()) if mask.any()]
        self._numbers = [number for number, _ in read]
        """Of the shards that hold some of the records."""
        self._masks = [mask for _, mask in read]
        self._chosen: Any = None
        if not all(mask.all() for mask in self._masks):
            with tf.device("CPU:0"):
                lengths = [len(mask) for mask in self._masks]
                self._chosen = tf.RaggedTensor.from_row_lengths(np.concatenate(self._masks), lengths)
        self._cycle = min(len(read), _CYCLE_SHARDS)
        self._fetching: Fetching | None = None
        if records.data.cache is not None:
            records.data.cache.check_room(self._cycle + AHEAD_SHARDS + 1)

    def batches(self, first_step: int, last_step: int, replicas: int = 1) -> Any:
        first_epoch, first_in_epoch = divmod(first_step, self.steps_per_epoch)
        last_epoch = -(-last_step // self.steps_per_epoch)
        self.close()
        if self._records.data.is_remote:
            wanted = self._wanted(first_epoch, last_epoch, first_in_epoch * self.batch)
            self._fetching = Fetching(self._records, wanted)

        def of_epoch(epoch: Any) -> Any:
            skipped = tf.where(epoch == first_epoch, first_in_epoch * self.batch, 0)
            # Skipping before the parsing: it costs the reading of the records, nothing more.
            used = self._in_order(epoch, self._serialized).skip(tf.cast(skipped, tf.int64))
            return used.batch(self.batch, drop_remainder=True)

        def parse(serialized: Any) -> tuple[tuple[Any, Any], ...]:
            # Parsing whole batches is ten times faster than parsing records.
            return tuple(parse_examples(part, self._card) for part in tf.split(serialized, replicas))

        # string [batch]
        batches = tf.data.Dataset.range(first_epoch, last_epoch).flat_map(of_epoch).take(last_step - first_step)
        parsed = batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return parsed.prefetch(tf.data.AUTOTUNE).with_options(in_this_order())

    def close(self) -> None:
        if self._fetching is not None:
            self._fetching.close()

    @property
    def failure(self) -> Exception | None:
        return None if self._fetching is None else self._fetching.failure

    def _serialized(self, number: Any) -> Any:
        """The records of a shard, as bytes."""
        if self._fetching is not None:
            name = self._fetching.queue.dequeue()
        else:
            name = tf.constant([self._records.paths[one] for one in self._numbers])[number]
        return tf.data.TFRecordDataset(name, buffer_size=READ_BYTES)

    def _in_order(self, epoch: Any, of_shard: Callable[[Any], Any]) -> Any:
        """What `of_shard` says of every record of the split, in the order of `epoch`."""

        def chosen(number: Any) -> Any:
            records = of_shard(number)
            if self._chosen is None:
                return records
            masks = tf.data.Dataset.from_tensor_slices(self._chosen[number])
            return tf.data.Dataset.zip((records, masks)).filter(lambda _, it: it).map(lambda record, _: record)

        # One after the other where shards are fetched: each when it is its turn, and no more of them open at once.
        calls = None if self._records.data.is_remote else tf.data.AUTOTUNE
        records = self._shard_order(epoch).interleave(
            chosen, self._cycle, _BLOCK_RECORDS, num_parallel_calls=calls, deterministic=calls and True
        )
        buffer = min(self.records, SHUFFLE_RECORDS)
        return records.shuffle(buffer, seed=self._seed * 1_000_003 + epoch, reshuffle_each_iteration=False)

    def _shard_order(self, epoch: Any) -> Any:
        shards = len(self._numbers)
        seed = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(epoch, tf.int64)])
        return tf.data.Dataset.range(shards).map(
            lambda position: tf.random.experimental.index_shuffle(position, seed, tf.constant(shards - 1, tf.int64))
        )

    def _wanted(self, first_epoch: int, last_epoch: int, skipped: int) -> Iterator[tuple[int, np.ndarray]]:
        """The shards in the order of their need, and which of their records are still to come."""
        to_come = self._to_come(first_epoch, skipped) if skipped else self._masks
        for epoch in range(first_epoch, last_epoch):
            # A list: a generator that is thrown away with an iterator of TensorFlow's in it was seen to hang.
            for place in list(self._shard_order(epoch).as_numpy_iterator()):
                yield self._numbers[place], (to_come if epoch == first_epoch else self._masks)[place]

    def _to_come(self, epoch: int, skipped: int) -> list[np.ndarray]:
        """bool [records] of each shard: what the rest of an epoch holds, found by drawing numbers in its order."""
        sizes = tf.constant([len(mask) for mask in self._masks], tf.int64)

        def numbers(place: Any) -> Any:
            return tf.data.Dataset.range(sizes[place]).map(lambda index: tf.stack([place, index]))

        found = [np.zeros(len(mask), bool) for mask in self._masks]
        used = self.steps_per_epoch * self.batch - skipped
        for places, indices in self._in_order(epoch, numbers).skip(skipped).take(used).batch(1 << 16).map(tf.transpose):
            for place in np.unique(places):
                found[place][indices[places == place].numpy()] = True
        return found
