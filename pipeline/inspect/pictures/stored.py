"""The samples as they stand in the shards, one at a time."""

from __future__ import annotations

import numpy as np

from pipeline import storage
from pipeline.inspect.manifest import VERIFY, Inspected, Row
from pipeline.reader.frames import BrokenFrame, frame_sums, read_images
from schemas.errors import UserError, explained


def read_sample(inspected: Inspected, row: Row) -> np.ndarray:
    """uint8 [size, size] of a kept record, ink 255 on 0. Raises UserError where its shard isn't as it was written."""
    card, where = inspected.card, f"{inspected.folder}: {row.sample_id}"
    shards = [file.path for split in card.splits.values() for file in split.shards]
    if row.shard not in shards or None in (row.shard_offset, row.shard_bytes):  # another name could lead anywhere
        found = f"{row.shard!r}, byte {row.shard_offset}"
        raise UserError(f"{where}: expected its place in a shard of the card, found {found}; {VERIFY}")
    path = storage.join(inspected.folder, row.shard)
    with explained(f"read {path}"):
        frame = storage.read_range(path, row.shard_offset, row.shard_bytes)
    image = np.empty((1, card.image_size, card.image_size), np.uint8)
    try:
        sums = frame_sums(np.array([len(frame)]), np.array([row.shard_crc32c], np.uint32))
        read_images([frame], sums, image, card.image_encoding)
    except BrokenFrame as error:
        fault = f"found one that {error}; {VERIFY}"
        raise UserError(f"{path}, byte {row.shard_offset:,}: expected {row.sample_id}, {fault}") from error
    return image[0]
