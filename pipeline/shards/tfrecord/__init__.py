"""The TFRecord file of a shard, from the images of its staged batches."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.shards import staging
from pipeline.shards.config import ConvertConfig
from schemas.errors import explained

if TYPE_CHECKING:
    from pipeline.shards.tfrecord.layout import Frames
    from pipeline.storage.uncached import UncachedStream

_NO_OFFSETS = np.empty(0, np.int64)
_PIECE_BYTES = 256 << 10  # 256 KiB of images stay in a core's cache from being unpacked to being hashed and written


@contextlib.contextmanager
def open_tfrecord(path: str, config: ConvertConfig) -> Iterator[TFRecordWriter]:
    """A TFRecord file to write to, which appears under `path` when the block ends well."""
    with explained(f"write {path}"), storage.atomic_large_write(path) as stream:
        yield TFRecordWriter(path, stream, config)


class TFRecordWriter:
    """The TFRecord file of a shard, while it is written."""

    def __init__(self, path: str, stream: BinaryIO | UncachedStream, config: ConvertConfig) -> None:
        self.records = self.bytes = 0
        self._path, self._stream, self._config = path, stream, config
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(
        self, samples: pa.Table, batches: Sequence[pa.RecordBatch], order: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adds n frames, see framed. Returns the length of each (int64 [n]), and its Example's CRC-32C (uint32 [n])."""
        sizes, crcs = [], []
        with explained(f"write {self._path}"):
            for frames in framed(samples, batches, order, self._config):
                self._stream.write(frames.octets)
                self._digest.update(frames.octets)
                sizes += frames.size
                crcs += frames.crc32c
        self.records += len(sizes)
        self.bytes += sum(sizes)
        return np.array(sizes, np.int64), np.array(crcs, np.uint32)


def framed(
    samples: pa.Table, batches: Sequence[pa.RecordBatch], order: np.ndarray, config: ConvertConfig
) -> Iterator[Frames]:
    """Some frames at a time.

    `samples` are the kept records of staged batches, with their label and sample_id; `order` is int64: the rows of all
    batches, end to end, in the order of the shard.
    """
    from pipeline.shards.tfrecord.layout import Layout  # Numba is imported by who writes shards, not by who starts it

    images = _Images(batches, order)
    assert len(images.size) == len(samples), "kept records and staged images aren't as many"
    raw_bytes = config.preprocess.image_size**2 if config.image_encoding == "raw" else None
    image_bytes = images.size if raw_bytes is None else np.full(len(samples), raw_bytes)
    label, sample_id = samples["label"].to_numpy().astype(np.int64), samples["sample_id"].combine_chunks()
    layout = Layout(image_bytes, label, sample_id)
    step = max(1, _PIECE_BYTES // config.preprocess.image_size**2)
    for begin in range(0, len(samples), step):
        part = slice(begin, begin + step)
        yield layout.frames(part, images.of(part, raw_bytes))


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

    def of(self, part: slice, raw_bytes: int | None) -> np.ndarray:
        """uint8: a part of them as they stand in an Example, the one behind the other.

        Where they are packed, `raw_bytes` is the length of each there.
        """
        from pipeline.shards.packing import unpack

        places = zip(self._batch[part].tolist(), self._begin[part].tolist(), self._end[part].tolist(), strict=True)
        staged = b"".join([self._data[batch][first:last] for batch, first, last in places])
        if raw_bytes is None:
            return np.frombuffer(staged, np.uint8)
        return unpack(staged, len(self._begin[part]), raw_bytes)[:, :raw_bytes].reshape(-1)


def _offsets(column: pa.LargeBinaryArray) -> np.ndarray:
    """int64 [n + 1]: where each value begins in the array's data."""
    return np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, offset=8 * column.offset)
