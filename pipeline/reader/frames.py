"""The images in TFRecord frames, every checksum compared.

A record takes a microsecond or two, most of it to bring its 4 kB from memory: it is copied, summed and its image copied
out while it lies in the processor's nearest cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any

import google_crc32c
import numpy as np

from schemas.example import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, IMAGE

_LENGTH, _CRC = Struct("<Q"), Struct("<I")
_MOST_VARINT_BYTES = 5
_IMAGE_NAME = b"\x0a" + bytes([len(IMAGE)]) + IMAGE.encode() + b"\x12"
_NO_EXAMPLE = "isn't an Example of this format"
# What CRC-32C does with a byte, by which sums are continued without the bytes before.
_TABLE = np.array([google_crc32c.value(bytes([octet ^ 0xFF])) for octet in range(256)], np.uint32) ^ 0xFF000000


class BrokenFrame(Exception):
    """Frame `position` of those that were to be read isn't what was written."""

    def __init__(self, position: int, fault: str) -> None:
        super().__init__(fault)
        self.position = position


def frames_at(numbers: np.ndarray, frames: Iterable[bytes], count: int) -> bytes:
    """`count` frames, of which those with these numbers, in their order, are given and the others are empty records."""
    pieces = [_EMPTY_FRAME] * count
    for number, frame in zip(numbers.tolist(), frames, strict=True):
        pieces[number] = frame
    return b"".join(pieces)


def frame_sums(lengths: np.ndarray, crcs: np.ndarray) -> np.ndarray:
    """uint32 [n]: the CRC-32C that each whole frame has to have, of its length and its Example's CRC-32C.

    What stands around an Example depends on these two alone. So one sum tells what the length's checksum, the Example's
    and the manifest's tell.
    """
    kinds, kind = np.unique(lengths, return_inverse=True)
    heads = np.array([_sum_before(length) for length in kinds.tolist()], np.uint32)
    state = ~(heads[kind] ^ crcs) ^ _masked(crcs)
    for _ in range(FRAME_FOOTER_BYTES):
        state = _TABLE[state & 0xFF] ^ state >> 8
    return ~state


def _sum_before(length: int) -> int:
    """What the header of a frame does to the sum of header and Example: CRCs are linear."""
    size = max(0, length - FRAME_HEADER_BYTES - FRAME_FOOTER_BYTES)
    header = _header(size)
    return google_crc32c.value(header + bytes(size)) ^ google_crc32c.value(bytes(size))


def _header(size: int) -> bytes:
    length = _LENGTH.pack(size)
    return length + _CRC.pack(_masked(google_crc32c.value(length)))


def _masked(crc: Any) -> Any:
    """TFRecord rotates a CRC and adds a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_images(frames: Iterable[bytes], sums: np.ndarray, images: np.ndarray, encoding: str) -> None:
    """Fills uint8 [n, size, size], which lie in one piece, from n frames. Raises BrokenFrame for the first bad one."""
    crc, pixels, is_raw = google_crc32c.value, images[0].size, encoding != "png"
    target = images.data.cast("B")
    heads: dict[int, bytes] = {}  # what stands before a raw image, by the length of its frame
    for position, (frame, wanted) in enumerate(zip(frames, sums.tolist(), strict=True)):
        if crc(frame) != wanted:
            raise BrokenFrame(position, "isn't what its checksum says")
        head = heads.get(len(frame))
        if head is None or not frame.startswith(head):
            try:
                at, size = _image_place(frame)
            except (IndexError, ValueError) as error:
                raise BrokenFrame(position, _NO_EXAMPLE) from error
            if at + size > len(frame):
                raise BrokenFrame(position, _NO_EXAMPLE)
            if not is_raw:
                _decode_png(frame[at : at + size], images, position)
                continue
            if size != pixels:
                raise _another_size(position, images)
            heads[len(frame)] = head = frame[:at]
        first = position * pixels
        target[first : first + pixels] = frame[len(head) : len(head) + pixels]


def _image_place(frame: bytes) -> tuple[int, int]:
    """Where the image begins, and its length. Raises IndexError or ValueError for what is no Example.

    The Example is field 1, a message of map entries; an entry is field 1 with a name and a value, field 2; the value
    of the image is a bytes_list (field 1), which holds field 1.
    """
    at = size = FRAME_HEADER_BYTES
    for literal in (b"\x0a", b"\x0a", _IMAGE_NAME, b"\x0a", b"\x0a"):
        if not frame.startswith(literal, at):
            raise ValueError(f"expected {literal!r}")
        size, at = _varint(frame, at + len(literal))
    return at, size


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and the place behind it."""
    value = 0
    for number in range(_MOST_VARINT_BYTES):
        octet = frame[at + number]
        value |= (octet & 0x7F) << 7 * number
        if octet < 0x80:
            return value, at + number + 1
    raise ValueError("a number is too long")


def _decode_png(png: bytes, images: np.ndarray, position: int) -> None:
    import cv2  # a fifth of a second, for whoever has raw images

    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) if png else None
    if decoded is None or decoded.shape != images.shape[1:]:
        raise _another_size(position, images)
    images[position] = decoded


def _another_size(position: int, images: np.ndarray) -> BrokenFrame:
    height, width = images.shape[1:]
    return BrokenFrame(position, f"holds an image that isn't the card's {width} × {height} pixels")


_EMPTY_FRAME = _header(0) + _CRC.pack(_masked(google_crc32c.value(b"")))
