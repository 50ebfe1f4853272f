"""The TFRecord file of a shard, from the images of its staged batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.shards import staging
from pipeline.shards.config import ConvertConfig
from schemas.errors import explained

_NO_OFFSETS = np.empty(0, np.int64)
_PIECE_BYTES = 256 << 10  # 256 KiB of frames stay in a core's cache from being laid out to being hashed and written


@dataclass(frozen=True)
class TFRecordFile:
    """A written file of n frames."""

    bytes: int
    sha256: str
    frame_bytes: np.ndarray
    """int64 [n]: the length of each."""
    crc32c: np.ndarray
    """uint32 [n]: of each Example, not masked."""


def write_tfrecord(path: str, frames: StagedFrames) -> TFRecordFile:
    digest, crcs = hashlib.sha256(), []
    with explained(f"write {path}"), storage.atomic_large_write(path) as stream:
        for piece, of_piece in frames.pieces():
            stream.write(piece.data)
            digest.update(piece.data)
            crcs += of_piece
    return TFRecordFile(int(frames.size.sum()), digest.hexdigest(), frames.size, np.array(crcs, np.uint32))


class StagedFrames:
    """The frames of the kept records of staged batches, taken in an order (int64: rows of all batches, end to end).

    `samples` are those records in that order, with their label and sample_id.
    """

    def __init__(
        self, samples: pa.Table, batches: Sequence[pa.RecordBatch], order: np.ndarray, config: ConvertConfig
    ) -> None:
        from pipeline.shards.framing import Frames  # imported by who writes shards, not by who starts it

        self._images = _Images(batches, order)
        assert len(self._images.size) == len(samples), "kept records and staged images aren't as many"
        self._raw_bytes = config.preprocess.image_size**2 if config.image_encoding == "raw" else None
        sizes = self._images.size if self._raw_bytes is None else np.full(len(samples), self._raw_bytes)
        label, sample_id = samples["label"].to_numpy().astype(np.int64), samples["sample_id"].combine_chunks()
        self._frames = Frames(sizes, label, sample_id)

    @property
    def size(self) -> np.ndarray:
        """int64 [n]: the length of each, in bytes."""
        return self._frames.size

    def pieces(self) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Some frames at a time (uint8), and the CRC-32C of each Example (not masked)."""
        from pipeline.shards.framing import unpack

        cuts = 1 + np.flatnonzero(np.diff(np.cumsum(self.size) // _PIECE_BYTES))
        for begin, end in pairwise([0, *cuts.tolist(), len(self.size)]):
            joined = self._images.joined(begin, end)
            if self._raw_bytes is None:
                sizes = self._images.size[begin:end]
                images, image_begin = np.frombuffer(joined, np.uint8), np.cumsum(sizes) - sizes
            else:
                unpacked = unpack(joined, end - begin, self._raw_bytes)
                images, image_begin = unpacked.reshape(-1), np.arange(end - begin) * unpacked.shape[1]
            yield self._frames.lay_out(begin, end, images, image_begin)


class _Images:
    """The images of staged batches in a given order, each read from its batch only when it is written."""

    def __init__(self, batches: Sequence[pa.RecordBatch], order: np.ndarray) -> None:
        columns = [batch[staging.IMAGE] for batch in batches]
        self._data = [memoryview(column.buffers()[2] or b"") for column in columns]
        offsets = [_offsets(column) for column in columns]
        begin = np.concatenate([_NO_OFFSETS, *(each[:-1] for each in offsets)])[order]
        end = np.concatenate([_NO_OFFSETS, *(each[1:] for each in offsets)])[order]
        batch = np.repeat(np.arange(len(batches)), [len(column) for column in columns])[order]
        kept = end > begin
        self._batch, self._begin, self._end = batch[kept], begin[kept], end[kept]

    @property
    def size(self) -> np.ndarray:
        """int64 [n]: bytes of each, as it is staged."""
        return self._end - self._begin

    def joined(self, begin: int, end: int) -> bytes:
        """Those from `begin` to `end`, one behind the other."""
        part = slice(begin, end)
        places = zip(self._batch[part].tolist(), self._begin[part].tolist(), self._end[part].tolist(), strict=True)
        return b"".join([self._data[batch][first:last] for batch, first, last in places])


def _offsets(column: pa.LargeBinaryArray) -> np.ndarray:
    """int64 [n + 1]: where each value begins in the array's data."""
    return np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, offset=8 * column.offset)
