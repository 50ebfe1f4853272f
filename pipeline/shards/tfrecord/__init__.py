"""The TFRecord file of a shard, from its rows and their images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.shards.config import ConvertConfig
from pipeline.shards.rows import Part
from schemas.errors import explained

if TYPE_CHECKING:
    from pipeline.shards.tfrecord.layout import Frames
    from pipeline.storage.uncached import UncachedStream

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

    def write(self, samples: Part, sample_id: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """Adds n frames, see framed. Returns the length of each (int64 [n]), and its Example's CRC-32C (uint32 [n])."""
        sizes, crcs = [], []
        with explained(f"write {self._path}"):
            for frames in framed(samples, sample_id, self._config):
                self._stream.write(frames.octets)
                self._digest.update(frames.octets)
                sizes += frames.size
                crcs += frames.crc32c
        self.records += len(sizes)
        self.bytes += sum(sizes)
        return np.array(sizes, np.int64), np.array(crcs, np.uint32)


def framed(samples: Part, sample_id: pa.StringArray, config: ConvertConfig) -> Iterator[Frames]:
    """The frames of kept records, in their order, some at a time."""
    from pipeline.shards.packing import unpack
    from pipeline.shards.tfrecord.layout import Layout  # Numba is imported by who writes shards, not by who starts it

    size, octets = samples.rows["image_bytes"].astype(np.int64), samples.octets
    assert np.all(size > 0), "a kept record without its image"
    raw_bytes = config.preprocess.image_size**2 if config.image_encoding == "raw" else None
    image_bytes = size if raw_bytes is None else np.full(len(samples), raw_bytes)
    layout = Layout(image_bytes, samples.rows["label"].astype(np.int64), sample_id)
    step = max(1, _PIECE_BYTES // config.preprocess.image_size**2)
    places = list(zip(samples.begin.tolist(), (samples.begin + size).tolist(), strict=True))
    for begin in range(0, len(samples), step):
        part = slice(begin, begin + step)
        # Read only when they are written; where they are packed, an image is `raw_bytes` long there.
        staged = b"".join([octets[first:last] for first, last in places[part]])
        if raw_bytes is None:
            images = np.frombuffer(staged, np.uint8)
        else:
            images = unpack(staged, len(places[part]), raw_bytes)[:, :raw_bytes].reshape(-1)
        yield layout.frames(part, images)
