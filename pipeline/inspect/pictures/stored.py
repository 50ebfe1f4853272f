"""The samples as they stand in the shards, one at a time."""

from __future__ import annotations

import struct

import cv2
import google_crc32c
import numpy as np

from pipeline import storage
from pipeline.inspect.manifest import VERIFY, Inspected, Row
from pipeline.verify.example import read_image
from schemas.errors import UserError, explained

_FRAME_HEADER = struct.Struct("<QI")
_FRAME_FOOTER_BYTES = 4


def read_sample(inspected: Inspected, row: Row) -> np.ndarray:
    """uint8 [size, size] of a kept record, ink 255 on 0. Raises UserError where its shard isn't as it was written."""
    assert row.shard_offset is not None
    assert row.shard_bytes is not None
    path = inspected.shard_path(row)
    with explained(f"read {path}"):
        frame = storage.read_range(path, row.shard_offset, row.shard_bytes)
    example = frame[_FRAME_HEADER.size : -_FRAME_FOOTER_BYTES]
    if len(frame) != row.shard_bytes or google_crc32c.value(example) != row.shard_crc32c:
        raise UserError(f"{path}, byte {row.shard_offset:,}: expected {row.sample_id}, found other bytes; {VERIFY}")
    return decode_image(read_image(example) or b"", inspected.card.image_encoding, inspected.card.image_size)


def decode_image(image: bytes, encoding: str, size: int) -> np.ndarray:
    """uint8 [size, size] of an Example's image feature. Raises UserError if it is something else."""
    pixels = np.frombuffer(image, np.uint8)
    if encoding == "png":
        decoded = cv2.imdecode(pixels, cv2.IMREAD_GRAYSCALE) if len(pixels) else None
        pixels = np.empty(0, np.uint8) if decoded is None else decoded
    if pixels.size != size * size:
        raise UserError(f"expected an image of {size} × {size} pixels, found something else; {VERIFY}")
    return pixels.reshape(size, size)
