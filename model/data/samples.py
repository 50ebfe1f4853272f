"""What a data set's manifest says of samples, and their images by random access to the shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.data.frames import FrameReader
from schemas.dataset import DatasetError
from schemas.manifest import KEPT
from schemas.reader import Dataset


def rows_of(data: Dataset, split: str, sample_ids: Iterable[str], columns: Sequence[str]) -> pa.Table:
    """`columns` of the manifest's row of each sample, in the order given. Raises DatasetError where one has none."""
    kept = data.manifest(split, ["sample_id", "status", *columns]).filter(pc.field("status") == KEPT)
    index = pc.index_in(pa.array(sample_ids, pa.string()), value_set=kept["sample_id"].combine_chunks())
    if index.null_count:
        raise DatasetError(f"{data.folder}: the manifest of split {split!r} lacks samples of its shards; convert again")
    return kept.take(index)


def writers_of(data: Dataset, split: str, sample_ids: Iterable[str]) -> np.ndarray:
    """str [n]. Raises DatasetError."""
    return np.array(rows_of(data, split, sample_ids, ["writer"])["writer"].to_pylist(), str)


def read_images(data: Dataset, split: str, sample_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """uint8 [size, size] of each sample, read from its place in its shard. Raises DatasetError."""
    reader = FrameReader(data.card.image_size, data.card.image_encoding)
    places = ["shard", "shard_index", "shard_offset", "shard_bytes"]
    return {
        row["sample_id"]: reader.image(
            data.folder / row["shard"], row["shard_index"], row["shard_offset"], row["shard_bytes"]
        )
        for row in rows_of(data, split, sample_ids, places).to_pylist()
    }
