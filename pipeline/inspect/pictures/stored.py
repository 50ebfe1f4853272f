"""The samples as they stand in the shards, one at a time."""

from __future__ import annotations

import google_crc32c
import numpy as np

from pipeline import storage
from pipeline.inspect.manifest import VERIFY, Inspected, Row
from pipeline.verify.example import decode_image, read_example, read_image
from schemas.errors import UserError


def read_sample(inspected: Inspected, row: Row) -> np.ndarray:
    """uint8 [size, size] of a kept record, ink 255 on 0. Raises UserError where its shard isn't as it was written."""
    card, where = inspected.card, f"{inspected.folder}: {row.sample_id}"
    shards = [file.path for split in card.splits.values() for file in split.shards]
    if row.shard not in shards or None in (row.shard_offset, row.shard_bytes):  # another name could lead anywhere
        found = f"{row.shard!r}, byte {row.shard_offset}"
        raise UserError(f"{where}: expected its place in a shard of the card, found {found}; {VERIFY}")
    path = storage.join(inspected.folder, row.shard)
    example = read_example(path, row.shard_offset, row.shard_bytes)
    if google_crc32c.value(example) != row.shard_crc32c:
        raise UserError(f"{path}, byte {row.shard_offset:,}: expected {row.sample_id}, found other bytes; {VERIFY}")
    try:
        return decode_image(read_image(example) or b"", card.image_size, card.image_encoding)
    except UserError as error:
        raise UserError(f"{where}: {error}; {VERIFY}") from error
