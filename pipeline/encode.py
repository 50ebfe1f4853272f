"""One sample to one TFRecord frame, without building a protobuf object.

A tf.train.Example is a map of features, and the order of a protobuf map isn't fixed: written by hand, in the order of
schemas/example.py, the same sample is the same bytes everywhere. Tests hold the bytes to TensorFlow's own parser and to
protobuf's deterministic serialisation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import google_crc32c
import numpy as np

from schemas.example import FEATURES, IMAGE, LABEL, SAMPLE_ID, ImageEncoding

FRAME_HEADER_BYTES = 12  # uint64 LE length, uint32 LE masked CRC-32C of the length
FRAME_FOOTER_BYTES = 4  # uint32 LE masked CRC-32C of the Example
_PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def image_encoder(encoding: ImageEncoding) -> Callable[[np.ndarray], bytes]:
    """From uint8 [size, size] to the bytes of the Example's image feature."""
    return encode_png if encoding == "png" else np.ndarray.tobytes


def encode_png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, _PNG_FAST)[1].tobytes()


def encode_example(image: bytes, label: int, sample_id: bytes) -> bytes:
    """The serialised tf.train.Example of one sample."""
    label_field = _varint(label)
    # Feature.bytes_list is field 1, Feature.int64_list field 3 (its values packed); BytesList.value is field 1.
    features = {
        IMAGE: b"\x0a" + _delimited(b"\x0a" + _delimited(image)),
        LABEL: b"\x1a" + _delimited(b"\x0a" + _delimited(label_field)),
        SAMPLE_ID: b"\x0a" + _delimited(b"\x0a" + _delimited(sample_id)),
    }
    entries = b"".join(_map_entry(feature.name.encode(), features[feature.name]) for feature in FEATURES)
    return b"\x0a" + _delimited(entries)


def frame_example(example: bytes) -> tuple[bytes, int]:
    """The TFRecord frame of a serialised Example, and the Example's CRC-32C (not masked)."""
    crc = google_crc32c.value(example)
    return frame_header(len(example)) + example + _masked(crc), crc


def frame_header(example_bytes: int) -> bytes:
    length = struct.pack("<Q", example_bytes)
    return length + _masked(google_crc32c.value(length))


def _masked(crc: int) -> bytes:
    """TFRecord rotates a CRC and adds a constant, so that a CRC of data holding CRCs stays a good one."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _map_entry(key: bytes, feature: bytes) -> bytes:
    return b"\x0a" + _delimited(b"\x0a" + _delimited(key) + b"\x12" + _delimited(feature))


def _delimited(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
