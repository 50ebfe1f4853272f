"""One Example against the spec of schemas/example.py: compared, byte by byte, with what the encoder would write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from pipeline import storage
from pipeline.shards.tfrecord.frames import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, encode_example
from pipeline.steps.plain import fitted_size
from pipeline.steps.settings import PreprocessConfig
from pipeline.verify.rows import ShardJob
from schemas.errors import UserError, explained
from schemas.example import IMAGE

_VARINT = rb"[\x80-\xff]*[\x00-\x7f]"
_NAME = bytes([len(IMAGE)]) + IMAGE.encode()
# Features, the first entry of its map, that entry's name and value, which is a Feature, its BytesList, its only value.
_BEFORE_IMAGE = re.compile(
    b"\x0a%b\x0a%b\x0a%b\x12%b\x0a%b\x0a(%b)" % (_VARINT, _VARINT, _NAME, _VARINT, _VARINT, _VARINT)
)


def example_fault(example: bytes, row: Mapping[str, Any], job: ShardJob) -> str | None:
    """What is wrong with the serialised Example of a kept row, in words; None if nothing is."""
    label, sample_id = row["label"], row["sample_id"]
    image = read_image(example)
    if image is None:
        return "expected an Example whose first feature is the image, found something else"
    if encode_example(image, label, sample_id.encode()) != example:
        return f"expected the Example of {sample_id} with label {label}, found other features{_named_in(example)}"
    try:
        pixels = decode_image(image, job.image_size, job.image_encoding)
    except UserError as error:
        return str(error)
    crop = row["crop_width"], row["crop_height"]
    return None if None in crop or job.preprocess is None else place_fault(pixels, crop, job.preprocess)


def place_fault(image: np.ndarray, crop: tuple[int, int], config: PreprocessConfig) -> str | None:
    """What in an image contradicts the size of the crop it was made of, in words; None if nothing does."""
    width, height = fitted_size(*crop, config.image_size - 2 * config.margin) if config.resize == "fit" else crop
    said = f"the crop of {crop[0]} × {crop[1]} pixels"
    if max(width, height) > config.image_size:
        return f"expected a crop that fits the image, found {said}"
    top, left = (config.image_size - height) // 2, (config.image_size - width) // 2
    inner = image[top : top + height, left : left + width]
    # Around what is pasted into the middle nothing is drawn.
    if np.count_nonzero(inner) != np.count_nonzero(image):
        return f"expected no ink outside {width} × {height} pixels in the middle, by {said}, found some"
    # Each side of a box around edges holds ink, which only shrinking can lose.
    shrunk = config.resize == "fit" and max(crop) > config.image_size - 2 * config.margin
    sides = () if config.crop == "none" or shrunk else (inner[0], inner[-1], inner[:, 0], inner[:, -1])
    if not all(side.any() for side in sides):
        return f"expected ink on each side of {width} × {height} pixels in the middle, by {said}, found a side without"
    return None


def read_example(path: str, offset: int, frame_bytes: int) -> bytes:
    """The serialised Example in the frame that begins at `offset` of a shard, by one request to a store."""
    size = max(0, frame_bytes - FRAME_HEADER_BYTES - FRAME_FOOTER_BYTES)
    with explained(f"read {path}"):
        return storage.read_range(path, offset + FRAME_HEADER_BYTES, size)


def read_image(example: bytes) -> bytes | None:
    """The bytes of the image feature; None if the Example doesn't begin as the encoder writes it."""
    head = _BEFORE_IMAGE.match(example)
    if head is None:
        return None
    length = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(head[1]))
    return example[head.end() : head.end() + length]


def decode_image(image: bytes, size: int, encoding: str) -> np.ndarray:
    """uint8 [size, size] of an Example's image feature. Raises UserError where it is something else."""
    pixels = np.frombuffer(image, np.uint8)
    if encoding == "raw":
        if len(image) != size * size:
            raise UserError(f"expected {size * size:,} bytes of image, found {len(image):,}")
        return pixels.reshape(size, size)
    decoded = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED) if image else None
    if decoded is None:
        raise UserError("expected a PNG, found an image that can't be decoded")
    if decoded.shape != (size, size) or decoded.dtype != np.uint8:
        found = f"{decoded.dtype} {list(decoded.shape)}"
        raise UserError(f"expected a grey 8-bit PNG of {size} × {size} pixels, found {found}")
    return decoded


def _named_in(example: bytes) -> str:
    """The sample_id that stands at the end of an Example, for a message."""
    tail = example[-120:].rpartition(b"\x12")[2][4:]
    name = tail.decode("utf-8", "replace")
    return f", of {name!r}" if name.count("/") == 2 else ""
