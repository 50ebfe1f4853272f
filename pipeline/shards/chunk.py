"""One chunk to one staged chunk: walk, label, preprocess, encode. No Beam in here: it is called by any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline import storage
from pipeline.shards import staging
from pipeline.shards.config import ConvertConfig
from pipeline.shards.staging import ChunkReceipt
from pipeline.shards.tfrecord.frames import encode_png
from pipeline.source import gnt
from pipeline.source.chunks import Chunk, read_chunk
from pipeline.source.members import Member
from schemas.classes import OUTSIDE, character_of
from schemas.example import sample_id_prefix
from schemas.manifest import (
    CROP_COLUMNS,
    DROPPED,
    KEPT,
    LOST_REASONS,
    NOT_SAMPLED,
    OUTSIDE_CLASS_SET,
    REJECTED,
    UNUSABLE_REASONS,
)

GROUP_RECORDS, _GROUP_BYTES = 4096, 64 << 20  # 64 MiB: most samples held in memory at once
_BLOCK_BYTES = 256 << 10  # 256 KiB of samples at a time, with as much of bitmaps, stay in a core's cache

_OUTCOMES = (
    (KEPT, None),
    *((REJECTED, reason) for reason in (*UNUSABLE_REASONS, *gnt.FAULTS[1:])),
    (DROPPED, OUTSIDE_CLASS_SET),
    (DROPPED, NOT_SAMPLED),
)
"""What becomes of a record: its status and the reason. The first ones are the outcomes of the six steps."""
_KEPT, _OUTSIDE, _NOT_SAMPLED = 0, len(_OUTCOMES) - 2, len(_OUTCOMES) - 1
_OF_FAULT = {gnt.SOUND: _KEPT, **{fault: _OUTCOMES.index((REJECTED, fault)) for fault in gnt.FAULTS[1:]}}
_SAMPLE_COLUMNS = ["sample_id", "split", "label", "char", "writer"]


def convert_chunk(chunk: Chunk, config: ConvertConfig, staging_folder: str, kept: str | None = None) -> ChunkReceipt:
    """Stages a chunk and returns its receipt; one that is staged already, there or in `kept`, is left as it is."""
    digest = chunk.digest(config.digest(chunk.member.split))
    for folder in filter(None, (kept, staging_folder)):
        receipt = staging.read_chunk_receipt(staging.chunk_path(folder, digest))
        if receipt is not None:
            break
    else:
        receipt = _stage(chunk, config, staging.chunk_path(staging_folder, digest))
    if chunk.unpacked is not None:
        storage.delete([chunk.unpacked])
    return receipt


def source_digest(member: Member, config: ConvertConfig) -> str:
    """Equal for the pieces of a member, in one conversion and in others that can use them."""
    return Chunk(member, 0, member.size_bytes, 0).digest(config.digest(member.split))


def _stage(chunk: Chunk, config: ConvertConfig, path: str) -> ChunkReceipt:
    from pipeline.steps.records import uncompiled  # Numba is imported by who converts, not by who starts it

    data = read_chunk(chunk)
    lost_bytes = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal lost_bytes
        for table in convert_records(data, chunk, config):
            if table["reason"].null_count < table.num_rows:
                reasons, sizes = table["reason"].to_pylist(), table["source_bytes"].to_pylist()
                lost_bytes += sum(size for size, reason in zip(sizes, reasons, strict=True) if reason in LOST_REASONS)
            yield table

    records, batches = staging.write_staged_chunk(path, tables(), config.num_shards[chunk.member.split])
    member = chunk.member
    receipt = ChunkReceipt(
        split=member.split,
        member=member.name,
        first_record=chunk.first_record,
        source_bytes=chunk.size_bytes,
        records=records,
        path=path,
        content=storage.fingerprint(path),
        batches=batches,
        source=source_digest(member, config),
        uncompiled=uncompiled(),
        lost_bytes=lost_bytes,
    )
    staging.commit_chunk(receipt)
    return receipt


def convert_records(data: bytes, chunk: Chunk, config: ConvertConfig) -> Iterator[pa.Table]:
    """Tables of STAGED_SCHEMA, a row for every record in `data`: a few thousand each, in the order of their shards."""
    first, most = chunk.first_record, min(GROUP_RECORDS, max(1, _GROUP_BYTES // config.preprocess.image_size**2))
    for records in gnt.walk_in_parts(data, most):
        yield _Group(data, chunk, config, records, first).table()
        first += len(records)


def samples_of(table: pa.Table, config: ConvertConfig) -> Iterator[dict[str, Any]]:
    """The kept records of such a table, raw images: sample_id, split, label, char, writer, and image, uint8 [s, s]."""
    from pipeline.shards.packing import unpack

    kept = table.filter(pa.array(status == KEPT for status in table["status"].to_pylist()))
    size = config.preprocess.image_size
    images = unpack(b"".join(kept[staging.IMAGE].to_pylist()), len(kept), size * size)[:, : size * size]
    for row, image in zip(kept.select(_SAMPLE_COLUMNS).to_pylist(), images, strict=True):
        yield {**row, staging.IMAGE: image.reshape(size, size)}


class _Group:
    """The columns of a few thousand records while they are filled, an array or a list each."""

    def __init__(
        self, data: bytes, chunk: Chunk, config: ConvertConfig, records: gnt.Records, first_record: int
    ) -> None:
        self.chunk = chunk
        self.config = config
        self.data = memoryview(data)
        member, self.count = chunk.member, len(records)
        prefix = sample_id_prefix(member.split, member.name)
        index = first_record + np.arange(self.count)
        sample_ids = [f"{prefix}{number}".encode() for number in index.tolist()]
        key = np.frombuffer(b"".join([_key(sample_id) for sample_id in sample_ids]), ">u8").astype(np.uint64)
        # By shard from the start: sorted afterwards, every image would be copied once more.
        order = np.argsort(staging.shard_of(key, config.num_shards[member.split]), kind="stable")
        self.sample_ids = [sample_ids[i] for i in order.tolist()]
        self.record_index, self.key = index[order], key[order]
        self.offset, self.size = records.offset[order], records.size[order]
        self.tag_code, self.width, self.height = records.tag_code[order], records.width[order], records.height[order]
        self.label = np.where(self.tag_code < 0, OUTSIDE, config.classes.labels_by_tag_code[self.tag_code])
        self.outcome = np.array([_OF_FAULT[records.fault[i]] for i in order.tolist()], np.int8)
        """Index into _OUTCOMES."""

    def table(self) -> pa.Table:
        member = self.chunk.member
        self._convert()
        has_header, kept, outcome = self.tag_code >= 0, self.outcome == _KEPT, pa.array(self.outcome)
        columns: dict[str, Any] = {
            "sample_id": pa.array(self.sample_ids, pa.string()),
            "split": _repeated(member.split, self.count),
            "status": pa.array([status for status, _ in _OUTCOMES], pa.string()).take(outcome),
            "reason": pa.array([reason for _, reason in _OUTCOMES], pa.string()).take(outcome),
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
            "ink_fraction": _masked(self.ink_fraction, self.sound, pa.float32()),
            **{name: _masked(self.crop[:, i], kept, pa.uint16()) for i, name in enumerate(CROP_COLUMNS)},
            "bitmap_digest": _masked(self.bitmap_digest, self.sound, pa.uint64()),
            staging.KEY: pa.array(self.key, pa.uint64()),
            staging.IMAGE: _binary(self.images, self.image_bytes),
        }
        return pa.table(columns, staging.STAGED_SCHEMA)

    def _convert(self) -> None:
        """Every record gets its outcome, and each kept one its image."""
        self.sound = self.outcome == _KEPT
        self.outcome[self.sound & (self.label == OUTSIDE)] = _OUTSIDE
        self._drop_what_is_not_sampled()
        self.ink_fraction = np.zeros(self.count, np.float32)
        self.bitmap_digest = np.zeros(self.count, np.uint64)
        self.crop = np.zeros((self.count, len(CROP_COLUMNS)), np.uint16)
        self.image_bytes = np.zeros(self.count, np.int64)
        self.images = bytearray()
        step = max(1, _BLOCK_BYTES // self.config.preprocess.image_size**2)
        rows = np.flatnonzero(self.sound)
        for begin in range(0, len(rows), step):
            self._convert_block(rows[begin : begin + step])

    def _drop_what_is_not_sampled(self) -> None:
        """Whether --sample_fraction keeps a record: by hash, so the same ones every time."""
        if self.config.sample_fraction == 1:
            return
        limit = int(self.config.sample_fraction * 2**64)
        for row in np.flatnonzero(self.outcome == _KEPT).tolist():
            # Another hash than the key's: a part chosen by key would be the first shards, not a part of each.
            digest = hashlib.blake2b(self.sample_ids[row], digest_size=8, person=b"sample").digest()
            if int.from_bytes(digest, "big") >= limit:
                self.outcome[row] = _NOT_SAMPLED

    def _convert_block(self, rows: np.ndarray) -> None:
        """As many records as a core's cache holds, so that each of their bytes comes from memory once."""
        from pipeline.shards.packing import pack
        from pipeline.steps.records import count_ink, preprocess_records

        octets = np.frombuffer(self.data, np.uint8)
        first_pixel = self.offset[rows] + gnt.HEADER_BYTES
        pixels = self.width[rows].astype(np.int64) * self.height[rows]
        self.ink_fraction[rows] = count_ink(octets, first_pixel, pixels) / pixels
        # The digest covers width and height, which stand right before the pixels.
        bounds = zip((first_pixel - 4).tolist(), (first_pixel + pixels).tolist(), strict=True)
        self.bitmap_digest[rows] = [xxhash.xxh3_64_intdigest(self.data[begin:end]) for begin, end in bounds]

        wanted = self.outcome[rows] == _KEPT
        rows, first_pixel = rows[wanted], first_pixel[wanted]
        samples = preprocess_records(octets, first_pixel, self.width[rows], self.height[rows], self.config.preprocess)
        self.outcome[rows], self.crop[rows] = samples.outcome, samples.crop
        kept = np.flatnonzero(samples.outcome == _KEPT)
        if self.config.image_encoding == "png":
            encoded = [encode_png(samples.image[i]) for i in kept.tolist()]
            self.images += b"".join(encoded)
            self.image_bytes[rows[kept]] = [len(png) for png in encoded]
        else:
            packed, self.image_bytes[rows[kept]] = pack(samples.image, kept)
            self.images += packed.data

    def _tag_columns(self) -> dict[str, pa.Array]:
        characters, tags = zip(*map(_character_and_tag, self.tag_code.tolist()), strict=True)
        return {"char": pa.array(characters, pa.string()), "tag": pa.array(tags, pa.string())}


@cache
def _character_and_tag(code: int) -> tuple[str | None, str | None]:
    """The tag's character and its hex; writers write the same characters, so each is looked up once."""
    tag = code.to_bytes(2, "big") if code >= 0 else None
    return (character_of(tag), tag.hex()) if tag else (None, None)


def _key(sample_id: bytes) -> bytes:
    """The 64 bits by which a record finds its shard and its place there."""
    return hashlib.blake2b(sample_id, digest_size=8).digest()


def _repeated(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), count)


def _masked(values: np.ndarray, valid: np.ndarray, dtype: pa.DataType) -> pa.Array:
    return pa.array(np.where(valid, values, 0), dtype, mask=~valid)


def _binary(joined: bytearray, lengths: np.ndarray) -> pa.Array:
    """large_binary of the values that stand one behind the other in `joined`, without a copy."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(joined)])
