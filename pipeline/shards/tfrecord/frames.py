"""One sample to one TFRecord frame, without building a protobuf object.

A tf.train.Example is a map of features, and the order of a protobuf map isn't fixed: written by hand, in the order of
schemas/example.py, the same sample is the same bytes everywhere. Tests hold the bytes to TensorFlow's own parser and to
protobuf's deterministic serialisation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

import deflate
import google_crc32c
import numpy as np

from schemas.classes import TAG_CODES
from schemas.example import FRAME_FOOTER_BYTES as FRAME_FOOTER_BYTES
from schemas.example import FRAME_HEADER_BYTES as FRAME_HEADER_BYTES
from schemas.example import IMAGE, LABEL, SAMPLE_ID, ImageEncoding

_LENGTHS = 1 << 14  # distinct lengths worth remembering: raw images have one, PNG some thousand
_FASTEST = 1  # libdeflate's level; more costs more than it saves


def image_encoder(encoding: ImageEncoding) -> Callable[[np.ndarray], bytes]:
    """From uint8 [size, size] to the bytes of the Example's image feature."""
    return encode_png if encoding == "png" else np.ndarray.tobytes


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [h, w] as a grey 8-bit PNG, its rows not filtered: most of a sample is its ground, long runs of 0."""
    height, width = image.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = image
    data = deflate.zlib_compress(rows, _FASTEST)
    length, crc = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(data, _IDAT_CRC))
    return b"".join((_png_head(width, height), length, _IDAT, data, crc, _PNG_END))


def encode_example(image: bytes | memoryview, label: int, sample_id: bytes) -> bytes:
    """The serialised tf.train.Example of one sample."""
    label_entry = _label_entry(label)
    image_head, id_head = _heads(len(image), len(label_entry), len(sample_id))
    return b"".join((image_head, image, label_entry, id_head, sample_id))


def frame_example(example: bytes) -> tuple[bytes, int]:
    """The TFRecord frame of a serialised Example, and the Example's CRC-32C (not masked)."""
    crc = google_crc32c.value(example)
    return b"".join((frame_header(len(example)), example, frame_footer(crc))), crc


@lru_cache(maxsize=_LENGTHS)
def frame_header(example_bytes: int) -> bytes:
    length = struct.pack("<Q", example_bytes)
    return length + frame_footer(google_crc32c.value(length))


def frame_footer(crc: int) -> bytes:
    """TFRecord rotates a CRC and adds a constant, so that a CRC of data holding CRCs stays a good one."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


# A PNG is a signature and chunks: uint32 BE length of the data, four letters, the data, uint32 BE CRC-32 of those two.


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache
def _png_head(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey; not interlaced
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header)


_IDAT = b"IDAT"
_IDAT_CRC = zlib.crc32(_IDAT)
_PNG_END = _png_chunk(b"IEND", b"")


# A feature is an entry of the map Features.feature (field 1): its name is field 1, its value field 2. In a value,
# Feature.bytes_list is field 1 and Feature.int64_list field 3; both hold their values, the ints packed, in field 1.
# What comes before a value depends on its length alone, and lengths repeat.


@lru_cache(maxsize=_LENGTHS)
def _heads(image_bytes: int, label_entry_bytes: int, id_bytes: int) -> tuple[bytes, bytes]:
    """All of an Example before the image, and what stands between the label's entry and the sample_id."""
    image_head, id_head = _bytes_entry_head(IMAGE, image_bytes), _bytes_entry_head(SAMPLE_ID, id_bytes)
    size = len(image_head) + image_bytes + label_entry_bytes + len(id_head) + id_bytes
    return b"\x0a" + _varint(size) + image_head, id_head


def _bytes_entry_head(name: str, length: int) -> bytes:
    """All of a bytes feature's map entry but the value itself, which ends it."""
    bytes_list = b"\x0a" + _varint(length)
    value = b"\x0a" + _varint(len(bytes_list) + length) + bytes_list
    return _entry_head(name, value, len(value) + length)


@lru_cache(maxsize=TAG_CODES)
def _label_entry(label: int) -> bytes:
    packed = _varint(label)
    int64_list = b"\x0a" + _varint(len(packed)) + packed
    value = b"\x1a" + _varint(len(int64_list)) + int64_list
    return _entry_head(LABEL, value, len(value))


def _entry_head(name: str, value: bytes, value_bytes: int) -> bytes:
    """A map entry up to the end of `value`, which is the beginning of `value_bytes` bytes."""
    key = b"\x0a" + _varint(len(name)) + name.encode()
    head = key + b"\x12" + _varint(value_bytes)
    return b"\x0a" + _varint(len(head) + value_bytes) + head + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
