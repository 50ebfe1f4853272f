"""The samples of a shard, read in stretches: every frame's checksums, its image and its label, many records at once.

The layout of an Example is fixed by the format (docs/format.md), so whole arrays of records are taken apart by NumPy,
without a protobuf object or a string for each.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import cv2
import google_crc32c
import numpy as np

from schemas.dataset import DatasetError
from schemas.example import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, IMAGE, LABEL
from schemas.reader import Dataset

_LENGTH = Struct("<Q")
_LENGTH_BYTES = 8
_COPIED_RECORDS = 256  # copied at once: what is copied twice stays in the processor's cache
_MOST_VARINT_BYTES = 5
_IMAGE_NAME = b"\x0a" + bytes([len(IMAGE)]) + IMAGE.encode() + b"\x12"
_LABEL_NAME = b"\x0a" + bytes([len(LABEL)]) + LABEL.encode() + b"\x12"


@dataclass(frozen=True)
class Stretch:
    """Records `first` to `first + records` of a shard that holds `shard_records`."""

    path: Path
    shard_records: int
    first: int
    records: int


def stretches_of(data: Dataset, split: str, most_records: int) -> list[Stretch]:
    """The split's shards, cut into stretches of at most `most_records`, in shard order."""
    return [
        Stretch(data.folder / shard.path, shard.records, first, min(most_records, shard.records - first))
        for shard in data.card.split(split).shards
        for first in range(0, shard.records, most_records)
    ]


class FrameReader:
    """Reads stretches, from any number of threads; where a shard's frames begin is found once."""

    def __init__(self, image_size: int, image_encoding: str) -> None:
        self._size = image_size
        self._png = image_encoding == "png"
        self._starts: dict[Path, np.ndarray] = {}

    def read(self, stretch: Stretch, images: np.ndarray, labels: np.ndarray) -> None:
        """Fills uint8 [records, size, size, 1] and int32 [records]. Raises DatasetError for a damaged shard."""
        data = _mapped(stretch.path)
        starts = self._starts.get(stretch.path)
        if starts is None:
            starts = self._starts[stretch.path] = _frame_starts(data, stretch)
        starts = starts[stretch.first : stretch.first + stretch.records + 1]
        labels[:] = self._read(stretch.path, data, starts[:-1], starts[1:], stretch.first, images)

    def image(self, path: Path, index: int, offset: int, size_bytes: int) -> np.ndarray:
        """uint8 [size, size] of record `index` of a shard, whose frame lies there. Raises DatasetError."""
        image = np.empty((1, self._size, self._size, 1), np.uint8)
        data = _mapped(path)
        if offset + size_bytes > len(data):
            raise _damaged(path, f"record {index:,} at byte {offset:,} ends beyond the file")
        self._read(path, data, np.array([offset]), np.array([offset + size_bytes]), index, image)
        return image[0, :, :, 0]

    def _read(
        self, path: Path, data: mmap.mmap, begins: np.ndarray, ends: np.ndarray, first: int, images: np.ndarray
    ) -> np.ndarray:
        """Fills `images` from the frames, the first of which is record `first`; returns their labels."""
        octets = np.frombuffer(data, np.uint8)
        _check_frames(path, data, octets, begins, ends, first)
        try:
            image_at, image_bytes, labels = _fields(octets, begins + FRAME_HEADER_BYTES)
        except (IndexError, ValueError) as error:
            raise _damaged(path, "holds records that aren't Examples of this format") from error
        fits = (self._decode_png if self._png else self._copy_raw)(octets, image_at, image_bytes, images)
        if not fits:
            raise _damaged(path, f"holds images that aren't the card's {self._size} × {self._size} pixels")
        return labels

    def _copy_raw(self, octets: np.ndarray, at: np.ndarray, length: np.ndarray, images: np.ndarray) -> bool:
        pixels = self._size**2
        if (length != pixels).any():
            return False
        rows = np.lib.stride_tricks.sliding_window_view(octets, pixels)
        flat = images.reshape(len(images), pixels)
        for begin in range(0, len(at), _COPIED_RECORDS):
            flat[begin : begin + _COPIED_RECORDS] = rows[at[begin : begin + _COPIED_RECORDS]]
        return True

    def _decode_png(self, octets: np.ndarray, at: np.ndarray, length: np.ndarray, images: np.ndarray) -> bool:
        for image, begin, end in zip(images, at.tolist(), (at + length).tolist(), strict=True):
            decoded = cv2.imdecode(octets[begin:end], cv2.IMREAD_GRAYSCALE)
            if decoded is None or decoded.shape != (self._size, self._size):
                return False
            image[:, :, 0] = decoded
        return True


def _mapped(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise _damaged(path, f"can't be read ({error})") from error


def _frame_starts(data: mmap.mmap, stretch: Stretch) -> np.ndarray:
    """int64 [shard_records + 1]: the first byte of each frame, and the end of the last one."""
    starts, offset, end, unpack = [0], 0, len(data), _LENGTH.unpack_from
    try:
        for _ in range(stretch.shard_records):
            offset += FRAME_HEADER_BYTES + unpack(data, offset)[0] + FRAME_FOOTER_BYTES
            starts.append(offset)
            if offset >= end:
                break
    except Exception as error:
        raise _damaged(stretch.path, f"record {len(starts) - 1:,} at byte {offset:,} ends beyond the file") from error
    if offset != end or len(starts) != stretch.shard_records + 1:
        found = f"found {len(starts) - 1:,}"
        raise _damaged(stretch.path, f"expected {stretch.shard_records:,} records in {end:,} bytes, {found}")
    return np.array(starts, np.int64)


def _check_frames(
    path: Path, data: mmap.mmap, octets: np.ndarray, begins: np.ndarray, ends: np.ndarray, first: int
) -> None:
    """Compares the checksums of lengths and Examples. Raises DatasetError for the first frame that differs."""
    lengths, which = np.unique(ends - begins - FRAME_HEADER_BYTES - FRAME_FOOTER_BYTES, return_inverse=True)
    crc = google_crc32c.value
    of_lengths = np.array([crc(_LENGTH.pack(length)) for length in lengths.tolist()], np.uint32)[which]
    spans = zip((begins + FRAME_HEADER_BYTES).tolist(), (ends - FRAME_FOOTER_BYTES).tolist(), strict=True)
    of_examples = np.array([crc(data[begin:end]) for begin, end in spans], np.uint32)
    good = _masked(of_lengths) == _uint32_at(octets, begins + _LENGTH_BYTES)
    good &= _masked(of_examples) == _uint32_at(octets, ends - FRAME_FOOTER_BYTES)
    if not good.all():
        bad = int(np.argmin(good))
        where = f"record {first + bad:,} at byte {begins[bad]:,}"
        raise _damaged(path, f"{where} isn't what its checksum says")


def _masked(crc: np.ndarray) -> np.ndarray:
    return (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)


def _uint32_at(octets: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(octets[at[:, None] + np.arange(4)]).view("<u4")[:, 0]


def _fields(octets: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each Example's image begins, its length in bytes, and the label; `at` is where each Example begins.

    The Example is field 1, a message of map entries; an entry is field 1 with a name and a value, field 2; the value
    of the image is a bytes_list (field 1), that of the label an int64_list (field 3); both hold field 1.
    """
    at = _skip(octets, at, b"\x0a")  # Example.features
    at = _skip(octets, at, b"\x0a")  # the image's entry
    at = _skip(octets, at, _IMAGE_NAME)
    at = _skip(octets, at, b"\x0a")  # Feature.bytes_list
    image_bytes, image_at = _varint(octets, _literal(octets, at, b"\x0a"))
    at = _skip(octets, image_at + image_bytes, b"\x0a")  # the label's entry
    at = _skip(octets, at, _LABEL_NAME)
    at = _skip(octets, at, b"\x1a")  # Feature.int64_list
    at = _skip(octets, at, b"\x0a")
    label, _ = _varint(octets, at)
    return image_at, image_bytes, label


def _skip(octets: np.ndarray, at: np.ndarray, literal: bytes) -> np.ndarray:
    """Behind `literal` and the length that follows it."""
    return _varint(octets, _literal(octets, at, literal))[1]


def _literal(octets: np.ndarray, at: np.ndarray, literal: bytes) -> np.ndarray:
    """Behind `literal`, which every record must have there; ValueError if one hasn't."""
    for place, expected in enumerate(literal):
        if (octets[at + place] != expected).any():
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


def _damaged(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{path}: {what}; the shard is damaged, copy it again, or convert again")
