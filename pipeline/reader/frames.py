"""The images in the TFRecord frames of many records at once, every checksum compared.

The layout of an Example is fixed by the format (docs/format.md), so whole arrays of frames are taken apart by NumPy,
without a protobuf object or a string for each. What stands before an image depends on two lengths alone: of frames of
one length, most often a handful of kinds, one is parsed, and the others have to begin with the same bytes.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any

import google_crc32c
import numpy as np

from schemas.example import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, IMAGE

_LENGTH = Struct("<Q")
_LENGTH_BYTES = 8
_HEAD_BYTES = 64  # of a frame: more than stands before an image
_MOST_VARINT_BYTES = 5
_IMAGE_NAME = b"\x0a" + bytes([len(IMAGE)]) + IMAGE.encode() + b"\x12"


class BrokenFrame(Exception):
    """Frame `position` of those that were to be read isn't what was written."""

    def __init__(self, position: int, fault: str) -> None:
        super().__init__(fault)
        self.position = position


def read_images(
    octets: np.ndarray, begins: np.ndarray, ends: np.ndarray, crcs: np.ndarray, images: np.ndarray, encoding: str
) -> None:
    """Fills uint8 [n, size, size] from the frames that lie at [begins, ends) in `octets`; `crcs` are their Examples'.

    Raises BrokenFrame for the first frame that isn't whole.
    """
    lengths, first, kind = np.unique(ends - begins, return_index=True, return_inverse=True)
    if lengths[0] < _HEAD_BYTES:
        raise BrokenFrame(int(first[0]), f"has {lengths[0]:,} bytes, too few for an Example")
    heads = _pieces(octets, begins, _HEAD_BYTES)
    _check_sums(octets, begins, ends, crcs, heads, lengths, kind)
    try:
        at, size = _image_places(heads, first, kind)
    except (IndexError, ValueError) as error:
        raise BrokenFrame(0, "or one behind it isn't an Example of this format") from error
    at += begins
    if (at + size > ends).any():
        raise BrokenFrame(int(np.argmax(at + size > ends)), "isn't an Example of this format")
    (_decode_png if encoding == "png" else _copy_raw)(octets, at, size, images)


def _check_sums(
    octets: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    crcs: np.ndarray,
    heads: np.ndarray,
    lengths: np.ndarray,
    kind: np.ndarray,
) -> None:
    crc = google_crc32c.value
    headers = [_LENGTH.pack(length - FRAME_HEADER_BYTES - FRAME_FOOTER_BYTES) for length in lengths.tolist()]
    headers = [header + _masked(crc(header)).to_bytes(4, "little") for header in headers]
    wanted = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, FRAME_HEADER_BYTES)[kind]
    good = (heads[:, :FRAME_HEADER_BYTES] == wanted).all(1)
    spans = zip((begins + FRAME_HEADER_BYTES).tolist(), (ends - FRAME_FOOTER_BYTES).tolist(), strict=True)
    found = np.array([crc(octets[begin:end]) for begin, end in spans], np.uint32)
    footers = np.ascontiguousarray(_pieces(octets, ends - FRAME_FOOTER_BYTES, FRAME_FOOTER_BYTES))
    good &= (found == crcs) & (_masked(found) == footers.view("<u4")[:, 0])
    if not good.all():
        raise BrokenFrame(int(np.argmin(good)), "isn't what its checksum says")


def _pieces(octets: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, size] that begin at each place; where the places are evenly spaced, not copied."""
    every = np.ndarray((len(octets) - size + 1, size), np.uint8, octets, strides=(1, 1))
    step = int(at[1] - at[0]) if len(at) > 1 else 1
    return every[at[0] : at[-1] + 1 : step] if step > 0 and (np.diff(at) == step).all() else every[at]


def _masked(crc: Any) -> Any:
    """TFRecord rotates a CRC and adds a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _image_places(heads: np.ndarray, first: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in its frame each image begins, and its length; `first` is the first frame of each kind."""
    at, size = np.array([_place_in(head.tobytes()) for head in heads[first]]).T
    same = heads == heads[first][kind]
    same |= np.arange(_HEAD_BYTES) >= at[kind][:, None]
    same[:, :FRAME_HEADER_BYTES] = True  # compared already
    return (at[kind], size[kind]) if same.all() else _parse(heads)


@lru_cache(1 << 10)
def _place_in(head: bytes) -> tuple[int, int]:
    """Of raw images there are few kinds of heads, but for the first pixels, which are ground."""
    at, size = _parse(np.frombuffer(head, np.uint8)[None])
    return int(at[0]), int(size[0])


def _parse(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same from the heads alone. Raises IndexError or ValueError where one isn't that of an Example.

    The Example is field 1, a message of map entries; an entry is field 1 with a name and a value, field 2; the value
    of the image is a bytes_list (field 1), which holds field 1.
    """
    octets, rows = heads.reshape(-1), np.arange(len(heads)) * _HEAD_BYTES
    at = _skip(octets, rows + FRAME_HEADER_BYTES, b"\x0a")  # Example.features
    at = _skip(octets, at, b"\x0a")  # the image's entry
    at = _skip(octets, at, _IMAGE_NAME)
    at = _skip(octets, at, b"\x0a")  # Feature.bytes_list
    size, at = _varint(octets, _literal(octets, at, b"\x0a"))
    return at - rows, size


def _skip(octets: np.ndarray, at: np.ndarray, literal: bytes) -> np.ndarray:
    """Behind `literal` and the length that follows it."""
    return _varint(octets, _literal(octets, at, literal))[1]


def _literal(octets: np.ndarray, at: np.ndarray, literal: bytes) -> np.ndarray:
    """Behind `literal`, which every frame must have there; ValueError if one hasn't."""
    if (octets[at[:, None] + np.arange(len(literal))] != np.frombuffer(literal, np.uint8)).any():
        raise ValueError(f"expected {literal!r}")
    return at + len(literal)


def _varint(octets: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number that begins at each place, and the place behind it."""
    value, more = np.zeros(len(at), np.int64), np.ones(len(at), bool)
    for number in range(_MOST_VARINT_BYTES):
        octet = octets[at].astype(np.int64)
        value += np.where(more, (octet & 0x7F) << 7 * number, 0)
        at = at + more
        more &= octet > 0x7F
        if not more.any():
            return value, at
    raise ValueError("a number is too long")


def _copy_raw(octets: np.ndarray, at: np.ndarray, size: np.ndarray, images: np.ndarray) -> None:
    pixels = images[0].size
    if (size != pixels).any():
        raise _another_size(int(np.argmax(size != pixels)), images)
    images.reshape(len(images), pixels)[:] = _pieces(octets, at, pixels)


def _decode_png(octets: np.ndarray, at: np.ndarray, size: np.ndarray, images: np.ndarray) -> None:
    import cv2  # a fifth of a second, for whoever has raw images

    for position, (begin, end) in enumerate(zip(at.tolist(), (at + size).tolist(), strict=True)):
        decoded = cv2.imdecode(octets[begin:end], cv2.IMREAD_GRAYSCALE)
        if decoded is None or decoded.shape != images.shape[1:]:
            raise _another_size(position, images)
        images[position] = decoded


def _another_size(position: int, images: np.ndarray) -> BrokenFrame:
    height, width = images.shape[1:]
    return BrokenFrame(position, f"holds an image that isn't the card's {width} × {height} pixels")
