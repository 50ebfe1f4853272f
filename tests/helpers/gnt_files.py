"""GNT data for tests, written without the code under test."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Record = tuple[bytes, np.ndarray]
"""(tag, uint8 [h, w])"""


def tag(character: str) -> bytes:
    """The two raw bytes of a character, NUL-padded."""
    return character.encode("gbk").ljust(2, b"\0")


def record(tag_bytes: bytes, bitmap: np.ndarray) -> bytes:
    """A GNT record: header and bitmap."""
    height, width = bitmap.shape
    return struct.pack("<I2sHH", 10 + width * height, tag_bytes, width, height) + bitmap.tobytes()


def member(records: Iterable[Record]) -> bytes:
    """A .gnt of these records."""
    return b"".join(record(tag_bytes, bitmap) for tag_bytes, bitmap in records)


def strokes(seed: int, width: int = 70, height: int = 64) -> np.ndarray:
    """uint8 [height, width]: two grey strokes on paper, drawn in integers, so the same everywhere."""
    bitmap = np.full((height, width), 255, np.uint8)
    y, x = np.mgrid[:height, :width]
    state = seed * 2654435761 + 12345
    for _ in range(2):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        a, b, c = (state >> 20) % 7 - 3, (state >> 30) % 5 + 1, (state >> 40) % (height * 2) + height // 2
        ink = abs(a * x + b * y - c) < 6 + (state >> 50) % 6
        bitmap[ink] = 20 + (state >> 12) % 120
    bitmap[height // 3 : height // 3 + 3, width // 4 : width // 2] = 30
    return bitmap


def records_of(characters: str, seed: int = 0) -> list[Record]:
    """A record of each character, of different sizes; equal for equal arguments."""
    return [
        (tag(character), strokes(seed * 1000 + i, 50 + (7 * i + seed) % 60, 48 + (5 * i) % 50))
        for i, character in enumerate(characters)
    ]


def parse(data: bytes) -> list[tuple[int, bytes, np.ndarray]]:
    """(offset, tag, bitmap) of each record of sound data, the plain way."""
    found, offset = [], 0
    while offset < len(data):
        size, tag_bytes, width, height = struct.unpack_from("<I2sHH", data, offset)
        assert size == 10 + width * height
        found.append(
            (offset, tag_bytes, np.frombuffer(data, np.uint8, width * height, offset + 10).reshape(height, width))
        )
        offset += size
    return found


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of these members; returns its path."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
