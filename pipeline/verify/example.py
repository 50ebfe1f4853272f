"""One Example against the spec of schemas/example.py: compared, byte by byte, with what the encoder would write."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.shards.frames import encode_example
from schemas.example import IMAGE

_BYTES, _IMAGE_KEY = 0x0A, b"\x0a" + bytes([len(IMAGE)]) + IMAGE.encode() + b"\x12"


def example_fault(example: bytes, label: int, sample_id: str, image_size: int, image_encoding: str) -> str | None:
    """What is wrong with the serialised Example of a sample, in words; None if nothing is."""
    image = read_image(example)
    if image is None:
        return "expected an Example whose first feature is the image, found something else"
    if encode_example(image, label, sample_id.encode()) != example:
        return f"expected the Example of {sample_id} with label {label}, found other features{_named_in(example)}"
    return _image_fault(image, image_size, image_encoding)


def read_image(example: bytes) -> bytes | None:
    """The bytes of the image feature; None if the Example doesn't begin as the encoder writes it."""
    try:
        at = _enter(example, 0)  # Features
        at = _enter(example, at)  # the first entry of the map
        if not example.startswith(_IMAGE_KEY, at):
            return None
        _, at = _varint(example, at + len(_IMAGE_KEY))  # Feature
        at = _enter(example, at)  # BytesList
        if example[at] != _BYTES:
            return None
        length, at = _varint(example, at + 1)
    except (IndexError, ValueError):
        return None
    return example[at : at + length]


def _image_fault(image: bytes, size: int, encoding: str) -> str | None:
    if encoding == "raw":
        return None if len(image) == size * size else f"expected {size * size:,} bytes of image, found {len(image):,}"
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED) if image else None
    if pixels is None:
        return "expected a PNG, found an image that can't be decoded"
    if pixels.shape != (size, size) or pixels.dtype != np.uint8:
        return f"expected a grey 8-bit PNG of {size} × {size} pixels, found {pixels.dtype} {list(pixels.shape)}"
    return None


def _enter(data: bytes, at: int) -> int:
    """The first byte inside the length-delimited field 1 that begins at `at`."""
    if data[at] != _BYTES:
        raise ValueError
    return _varint(data, at + 1)[1]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 0x7F:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _named_in(example: bytes) -> str:
    """The sample_id that stands at the end of an Example, for a message."""
    tail = example[-120:].rpartition(b"\x12")[2][4:]
    name = tail.decode("utf-8", "replace")
    return f", of {name!r}" if name.count("/") == 2 else ""
