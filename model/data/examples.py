"""A data set's shards, checked against its card, and the parsing of their Examples."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from model.data.frames import FrameReader, Stretch, stretches_of
from schemas.dataset import Card, DatasetError
from schemas.example import FEATURES, IMAGE, LABEL, SAMPLE_ID
from schemas.machine import available_cores
from schemas.reader import Dataset

_DTYPES = {"bytes_list": tf.string, "int64_list": tf.int64}
READ_BYTES = 8 << 20  # 8 MiB
_LOAD_RECORDS = 4_096
_ALIGNMENT_BYTES = 64
PARSE_SPEC = {feature.name: tf.io.FixedLenFeature([], _DTYPES[feature.kind]) for feature in FEATURES}


def check_split(data: Dataset, split: str) -> list[str]:
    """The paths of the split's shards, each as long as the card says. Raises DatasetError if one isn't."""
    shards = data.card.split(split).shards
    if not any(shard.records for shard in shards):
        raise DatasetError(f"{data.folder}: split {split!r} holds no samples")
    for shard in shards:
        path = data.folder / shard.path
        if not path.is_file():
            raise DatasetError(
                f"{path}: expected a shard of {shard.bytes:,} bytes, found none; copy it, or convert again"
            )
        found = path.stat().st_size
        if found != shard.bytes:
            raise DatasetError(
                f"{path}: expected {shard.bytes:,} bytes, found {found:,}; "
                "the shard is damaged, copy it again, or convert again"
            )
    return [str(data.folder / shard.path) for shard in shards if shard.records]


def parse_examples(serialized: Any, card: Card) -> tuple[Any, Any, Any]:
    """string [B] -> uint8 [B, size, size, 1], int32 [B], sample_id string [B]. Whole batches are parsed at once."""
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
    return (
        tf.ensure_shape(images, [*serialized.shape, size, size, 1]),
        tf.cast(parsed[LABEL], tf.int32),
        parsed[SAMPLE_ID],
    )


def load_split(data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, size, size, 1] and int32 [N], in shard order. Raises DatasetError for a damaged shard."""
    check_split(data, split)
    stretches = stretches_of(data, split, _LOAD_RECORDS)
    ends = np.cumsum([stretch.records for stretch in stretches]).tolist()
    size = data.card.image_size
    images, labels = aligned_empty((ends[-1], size, size, 1)), np.empty(ends[-1], np.int32)
    reader = FrameReader(size, data.card.image_encoding)

    def load(stretch: Stretch, end: int) -> None:
        part = slice(end - stretch.records, end)
        reader.read(stretch, images[part], labels[part])

    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(load, stretches, ends):
            pass
    return images, labels


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """uint8, at an address that TensorFlow takes without a copy."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + size].reshape(shape)


def damaged(data: Dataset, split: str, after: int | None = None) -> DatasetError:
    where = "" if after is None else f" after record {after:,}"
    return DatasetError(
        f"{data.folder}: a shard of split {split!r} is damaged{where}; "
        "python -m pipeline.verify names it; copy it again, or convert again"
    )
