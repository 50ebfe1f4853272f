"""One chunk to one staged chunk: walk, label, preprocess, encode. No Beam in here: it is called by any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import xxhash

from pipeline import gnt, staging, storage
from pipeline.chunks import Chunk, read_chunk
from pipeline.config import ConvertConfig
from pipeline.encode import encode_example, frame_example, image_encoder
from pipeline.preprocess import PAPER, Box, Unusable, pin_opencv, preprocess
from pipeline.staging import ChunkReceipt
from schemas.classes import OUTSIDE, character_of
from schemas.example import sample_id_prefix
from schemas.manifest import DROPPED, KEPT, NOT_SAMPLED, OUTSIDE_CLASS_SET, REJECTED

GROUP_RECORDS = 4096
"""Records held in memory as samples at once."""


def convert_chunk(chunk: Chunk, config: ConvertConfig, staging_folder: str) -> ChunkReceipt:
    """Stages a chunk and returns its receipt; one that is staged already is left as it is."""
    path = staging.chunk_path(staging_folder, chunk.digest(config.digest(chunk.member.split)))
    receipt = staging.read_chunk_receipt(path) or _stage(chunk, config, path)
    if chunk.unpacked is not None:
        storage.delete([chunk.unpacked])
    return receipt


def _stage(chunk: Chunk, config: ConvertConfig, path: str) -> ChunkReceipt:
    pin_opencv()
    data = read_chunk(chunk)
    records, batches = staging.write_staged_chunk(
        path, convert_records(data, chunk, config), config.num_shards[chunk.member.split]
    )
    member = chunk.member
    receipt = ChunkReceipt(
        split=member.split,
        member=member.name,
        first_record=chunk.first_record,
        source_bytes=chunk.size_bytes,
        records=records,
        path=path,
        content=staging.fingerprint(path),
        batches=batches,
    )
    staging.commit_chunk(receipt)
    return receipt


def convert_records(data: bytes, chunk: Chunk, config: ConvertConfig) -> Iterator[pa.Table]:
    """Tables of STAGED_SCHEMA, at most GROUP_RECORDS rows each, a row for every record in `data`."""
    records = gnt.walk(data, last=True)
    for begin in range(0, len(records), GROUP_RECORDS):
        yield _Group(data, chunk, config, records, begin, min(begin + GROUP_RECORDS, len(records))).table()


class _Group:
    """The columns of a few thousand records while they are filled, a list or an array each."""

    def __init__(
        self, data: bytes, chunk: Chunk, config: ConvertConfig, records: gnt.Records, begin: int, end: int
    ) -> None:
        self.chunk = chunk
        self.config = config
        self.data = memoryview(data)
        self.pixels = np.frombuffer(data, np.uint8)
        part = slice(begin, end)
        self.offset, self.size = records.offset[part], records.size[part]
        self.tag_code, self.width, self.height = records.tag_code[part], records.width[part], records.height[part]
        self.fault = records.fault[part]
        self.count = end - begin
        self.record_index = np.arange(begin, end) + chunk.first_record
        self.label = np.where(self.tag_code < 0, OUTSIDE, config.classes.labels_by_tag_code[self.tag_code])

    def table(self) -> pa.Table:
        member = self.chunk.member
        prefix = sample_id_prefix(member.split, member.name)
        sample_ids = [f"{prefix}{index}" for index in self.record_index.tolist()]
        encoded_ids = [sample_id.encode() for sample_id in sample_ids]
        keys = np.frombuffer(b"".join([_key(sample_id) for sample_id in encoded_ids]), ">u8").astype(np.uint64)
        self._convert(encoded_ids)
        has_header = self.tag_code >= 0
        columns: dict[str, Any] = {
            "sample_id": pa.array(sample_ids, pa.string()),
            "split": _repeated(member.split, self.count),
            "status": pa.array(self.status, pa.string()),
            "reason": pa.array(self.reason, pa.string()),
            "label": _masked(self.label, self.label != OUTSIDE, pa.int16()),
            **self._tag_columns(),
            "writer": _repeated(member.writer, self.count),
            "archive": _repeated(member.archive, self.count),
            "member": _repeated(member.name, self.count),
            "record_index": pa.array(self.record_index, pa.uint32()),
            "source_offset": pa.array(self.offset + self.chunk.begin, pa.uint64()),
            "source_bytes": pa.array(self.size, pa.uint64()),
            "width": _masked(self.width, has_header, pa.uint16()),
            "height": _masked(self.height, has_header, pa.uint16()),
            "ink_fraction": pa.array(self.ink_fraction, pa.float32()),
            **self._crop_columns(),
            "bitmap_digest": pa.array(self.bitmap_digest, pa.uint64()),
            staging.KEY: pa.array(keys, pa.uint64()),
            staging.FRAME: _binary(self.frames, self.frame_bytes),
            staging.CRC: pa.array(self.crc, pa.uint32()),
        }
        return pa.table(columns, staging.STAGED_SCHEMA)

    def _convert(self, sample_ids: list[bytes]) -> None:
        """The per-record path: every record gets a status, and each kept one its frame."""
        config, count = self.config, self.count
        encode_image: Callable[[np.ndarray], bytes] = image_encoder(config.image_encoding)
        steps = config.preprocess
        sampled = _Sampler(config.sample_fraction)
        self.status = [REJECTED] * count
        self.reason: list[str | None] = list(self.fault)
        self.ink_fraction: list[float | None] = [None] * count
        self.bitmap_digest: list[int | None] = [None] * count
        self.crop: list[Box | None] = [None] * count
        self.crc: list[int | None] = [None] * count
        self.frames = bytearray()
        self.frame_bytes = [0] * count
        pixels, status, reason = self.pixels, self.status, self.reason
        rows = zip(
            range(count),
            self.fault,
            self.offset.tolist(),
            self.width.tolist(),
            self.height.tolist(),
            self.label.tolist(),
            strict=True,
        )
        for i, fault, offset, width, height, label in rows:
            if fault:
                continue
            first_pixel = offset + gnt.HEADER_BYTES
            # The digest covers width and height, which stand right before the pixels.
            self.bitmap_digest[i] = xxhash.xxh3_64_intdigest(self.data[first_pixel - 4 : first_pixel + width * height])
            bitmap = pixels[first_pixel : first_pixel + width * height].reshape(height, width)
            self.ink_fraction[i] = cv2.countNonZero(cv2.bitwise_not(bitmap)) / (width * height)
            if label == OUTSIDE:
                status[i], reason[i] = DROPPED, OUTSIDE_CLASS_SET
                continue
            if not sampled(sample_ids[i]):
                status[i], reason[i] = DROPPED, NOT_SAMPLED
                continue
            try:
                image, self.crop[i] = preprocess(bitmap, steps)
            except Unusable as unusable:
                reason[i] = unusable.reason
                continue
            frame, self.crc[i] = frame_example(encode_example(encode_image(image), label, sample_ids[i]))
            self.frames += frame
            self.frame_bytes[i] = len(frame)
            status[i], reason[i] = KEPT, None

    def _tag_columns(self) -> dict[str, pa.Array]:
        """The tag in hex and its character; a member has few distinct tags, so each is looked up once."""
        codes, positions = np.unique(self.tag_code, return_inverse=True)
        tags = [None if code < 0 else int(code).to_bytes(2, "big") for code in codes]
        hexes = pa.array([tag and tag.hex() for tag in tags], pa.string())
        characters = pa.array([tag and character_of(tag) for tag in tags], pa.string())
        where = pa.array(positions)
        return {"char": characters.take(where), "tag": hexes.take(where)}

    def _crop_columns(self) -> dict[str, pa.Array]:
        found = np.array([box is not None for box in self.crop], bool)
        boxes = np.array([box or (0, 0, 0, 0) for box in self.crop], np.uint16).reshape(self.count, 4)
        names = ("crop_x", "crop_y", "crop_width", "crop_height")
        return {name: _masked(boxes[:, i], found, pa.uint16()) for i, name in enumerate(names)}


class _Sampler:
    """Whether --sample_fraction keeps a record: by hash, so the same ones every time."""

    def __init__(self, fraction: float) -> None:
        self.everything = fraction == 1
        self.limit = int(fraction * 2**64)

    def __call__(self, sample_id: bytes) -> bool:
        if self.everything:
            return True
        # Another hash than the key's: a part chosen by key would be the first shards, not a part of each.
        digest = hashlib.blake2b(sample_id, digest_size=8, person=b"sample").digest()
        return int.from_bytes(digest, "big") < self.limit


def _key(sample_id: bytes) -> bytes:
    """The 64 bits by which a record finds its shard and its place there."""
    return hashlib.blake2b(sample_id, digest_size=8).digest()


def _repeated(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), count)


def _masked(values: np.ndarray, valid: np.ndarray, dtype: pa.DataType) -> pa.Array:
    return pa.array(np.where(valid, values, 0), dtype, mask=~valid)


def _binary(joined: bytearray, lengths: list[int]) -> pa.Array:
    """large_binary of the values that stand one behind the other in `joined`, without a copy."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(joined)])


assert PAPER == 255  # ink_fraction counts the pixels whose complement isn't 0
