"""What a data set's manifest says of samples, and their images by random access to the shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.data.frames import FrameReader
from schemas.dataset import Card, DatasetError
from schemas.manifest import KEPT


def rows_of(card: Card, folder: Path, split: str, sample_ids: Iterable[str], columns: Sequence[str]) -> pa.Table:
    """`columns` of the manifest's row of each sample, in the order given. Raises DatasetError where one has none."""
    columns = ["sample_id", *columns]
    tables = []
    for shard in card.split(split).shards:
        path = folder / shard.manifest_path
        try:
            table = pq.read_table(path, columns=[*columns, "status"])
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise DatasetError(f"{path}: can't be read ({reason}); copy it again, or convert again") from error
        tables.append(table.filter(pc.field("status") == KEPT).select(columns))
    manifest = pa.concat_tables(tables)
    index = pc.index_in(pa.array(sample_ids, pa.string()), value_set=manifest["sample_id"].combine_chunks())
    if index.null_count:
        raise DatasetError(f"{folder}: the manifest of split {split!r} lacks samples of its shards; convert again")
    return manifest.take(index)


def writers_of(card: Card, folder: Path, split: str, sample_ids: Iterable[str]) -> np.ndarray:
    """str [n]. Raises DatasetError."""
    return np.array(rows_of(card, folder, split, sample_ids, ["writer"])["writer"].to_pylist(), str)


def read_images(card: Card, folder: Path, split: str, sample_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """uint8 [size, size] of each sample, read from its place in its shard. Raises DatasetError."""
    reader = FrameReader(card.image_size, card.image_encoding)
    places = ["shard", "shard_index", "shard_offset", "shard_bytes"]
    rows = rows_of(card, folder, split, sample_ids, places).to_pylist()
    return {
        sample_id: reader.image(folder / row["shard"], row["shard_index"], row["shard_offset"], row["shard_bytes"])
        for sample_id, row in zip(sample_ids, rows, strict=True)
    }
