"""The parsing of Examples in TensorFlow, and a split's images in memory, where TensorFlow takes them without a copy."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.reader.dataset import Dataset
from pipeline.reader.records import Records
from schemas.dataset import Card, DatasetError
from schemas.example import FEATURES, IMAGE, LABEL
from schemas.machine import available_cores

_DTYPES = {"bytes_list": tf.string, "int64_list": tf.int64}
READ_BYTES = 8 << 20  # 8 MiB
_LOAD_RECORDS = 4_096
_ALIGNMENT_BYTES = 64
PARSE_SPEC = {feature.name: tf.io.FixedLenFeature([], _DTYPES[feature.kind]) for feature in FEATURES}


def parse_examples(serialized: Any, card: Card) -> tuple[Any, Any]:
    """string [B] -> uint8 [B, size, size, 1], int32 [B]. Whole batches are parsed at once."""
    parsed = tf.io.parse_example(serialized, PARSE_SPEC)
    size = card.image_size
    if card.image_encoding == "png":
        images = tf.map_fn(
            lambda png: tf.ensure_shape(tf.io.decode_png(png, channels=1), [size, size, 1]),
            parsed[IMAGE],
            fn_output_signature=tf.TensorSpec([size, size, 1], tf.uint8),
        )
    else:
        images = tf.reshape(tf.io.decode_raw(parsed[IMAGE], tf.uint8), [-1, size, size, 1])
    return tf.ensure_shape(images, [*serialized.shape, size, size, 1]), tf.cast(parsed[LABEL], tf.int32)


def load_split(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, size, size, 1] and int32 [N], in their order. Raises DatasetError for a damaged shard."""
    count, size = len(records), records.data.card.image_size
    images = aligned_empty((count, size, size))

    def load(first: int) -> None:
        positions = np.arange(first, min(first + _LOAD_RECORDS, count))
        records.read(positions, images[first : first + len(positions)])

    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(load, range(0, count, _LOAD_RECORDS)):
            pass
    return images[..., None], records.labels


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """uint8, at an address that TensorFlow takes without a copy."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + size].reshape(shape)


def damaged(data: Dataset, split: str) -> DatasetError:
    return DatasetError(
        f"{data.folder}: a shard of split {split!r} is damaged; "
        "python -m pipeline.verify names it; copy it again, or convert again"
    )
