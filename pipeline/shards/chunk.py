"""One chunk to one staged chunk: walk, label, preprocess, encode. No Beam in here: it is called by any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from pipeline import storage
from pipeline.shards import staging
from pipeline.shards.config import ConvertConfig
from pipeline.shards.rows import (
    IS_KEPT,
    IS_NOT_SAMPLED,
    IS_OUTSIDE,
    OF_FAULT,
    ROW,
    Part,
    Source,
    Tally,
    begins,
    columns,
)
from pipeline.shards.slices import Bins, shard_of, write_parts
from pipeline.shards.staging import ChunkReceipt
from pipeline.shards.tfrecord.frames import encode_png
from pipeline.source import gnt
from pipeline.source.chunks import Chunk, read_chunk
from pipeline.source.members import Member
from schemas.classes import OUTSIDE
from schemas.example import sample_id_prefix

PART_RECORDS, _PART_BYTES = 1 << 14, 64 << 20  # 64 MiB: most samples held in memory at once
_SAMPLE_COLUMNS = ("sample_id", "split", "label", "char", "writer")
_BLOCK_BYTES = 256 << 10  # 256 KiB of samples at a time, with as much of bitmaps, stay in a core's cache


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

    data, tally = read_chunk(chunk), Tally()

    def parts() -> Iterator[Part]:
        for part in convert_records(data, chunk, config):
            tally.add(part.rows)
            yield part

    member = chunk.member
    num_shards = config.num_shards[member.split]
    written = write_parts(path, parts(), Bins(num_shards, 0, num_shards))
    receipt = ChunkReceipt(
        split=member.split,
        member=member.name,
        archive=member.archive,
        first_record=chunk.first_record,
        source_bytes=chunk.size_bytes,
        counts=tally.counts,
        keys=tally.keys,
        lost_bytes=tally.lost_bytes,
        path=path,
        content=storage.fingerprint(path),
        parts=written,
        source=source_digest(member, config),
        uncompiled=uncompiled(),
    )
    staging.commit_chunk(receipt)
    return receipt


def convert_records(data: bytes, chunk: Chunk, config: ConvertConfig) -> Iterator[Part]:
    """A row for every record in `data`: some thousands at a time, in the order of their shards, and their images."""
    first, most = chunk.first_record, min(PART_RECORDS, max(1, _PART_BYTES // config.preprocess.image_size**2))
    for records in gnt.walk_in_parts(data, most):
        yield _Group(data, chunk, config, records, first).part()
        first += len(records)


def samples_of(part: Part, member: Member, config: ConvertConfig) -> Iterator[dict[str, Any]]:
    """The kept records among them, raw images: sample_id, split, label, char, writer, and image, uint8 [s, s]."""
    from pipeline.shards.packing import unpack

    kept = part.chosen(np.flatnonzero(part.rows["outcome"] == IS_KEPT))
    source = Source(member.split, member.name, member.writer, member.archive)
    found = columns(kept.rows, [source])
    wanted = [found[name].to_pylist() for name in _SAMPLE_COLUMNS]
    size = config.preprocess.image_size
    images = unpack(bytes(kept.joined().octets), len(kept), size * size)[:, : size * size]
    for *values, image in zip(*wanted, images, strict=True):
        yield {**dict(zip(_SAMPLE_COLUMNS, values, strict=True)), "image": image.reshape(size, size)}


class _Group:
    """The rows of a few thousand records while they are filled."""

    def __init__(
        self, data: bytes, chunk: Chunk, config: ConvertConfig, records: gnt.Records, first_record: int
    ) -> None:
        self.config = config
        self.data = memoryview(data)
        member, self.count = chunk.member, len(records)
        prefix = sample_id_prefix(member.split, member.name)
        index = first_record + np.arange(self.count)
        sample_ids = [f"{prefix}{number}".encode() for number in index.tolist()]
        key = np.frombuffer(b"".join([_key(sample_id) for sample_id in sample_ids]), ">u8").astype(np.uint64)
        # By shard from the start: sorted afterwards, every image would be copied once more.
        order = np.argsort(shard_of(key, config.num_shards[member.split]), kind="stable")
        self.sample_ids = [sample_ids[i] for i in order.tolist()]
        self.offset, tag_code = records.offset[order], records.tag_code[order]
        self.width, self.height = records.width[order], records.height[order]
        self.rows = np.zeros(self.count, ROW)
        self.rows["key"], self.rows["record_index"] = key[order], index[order]
        self.rows["source_offset"], self.rows["source_bytes"] = self.offset + chunk.begin, records.size[order]
        self.rows["tag_code"], self.rows["width"], self.rows["height"] = tag_code, self.width, self.height
        self.label = np.where(tag_code < 0, OUTSIDE, config.classes.labels_by_tag_code[tag_code])
        self.outcome = np.array([OF_FAULT[records.fault[i]] for i in order.tolist()], np.int8)
        """Index into OUTCOMES."""

    def part(self) -> Part:
        self._convert()
        fields = {
            "ink_fraction": self.ink_fraction,
            "bitmap_digest": self.bitmap_digest,
            "crop": self.crop,
            "label": self.label,
            "outcome": self.outcome,
            "image_bytes": self.image_bytes,
        }
        for name, values in fields.items():
            self.rows[name] = values
        return Part(self.rows, begins(self.image_bytes), memoryview(self.images))

    def _convert(self) -> None:
        """Every record gets its outcome, and each kept one its image."""
        sound = self.outcome == IS_KEPT
        self.outcome[sound & (self.label == OUTSIDE)] = IS_OUTSIDE
        self._drop_what_is_not_sampled()
        self.ink_fraction = np.zeros(self.count, np.float32)
        self.bitmap_digest = np.zeros(self.count, np.uint64)
        self.crop = np.zeros((self.count, 4), np.uint16)
        self.image_bytes = np.zeros(self.count, np.int64)
        self.images = bytearray()
        step = max(1, _BLOCK_BYTES // self.config.preprocess.image_size**2)
        rows = np.flatnonzero(sound)
        for begin in range(0, len(rows), step):
            self._convert_block(rows[begin : begin + step])

    def _drop_what_is_not_sampled(self) -> None:
        """Whether --sample_fraction keeps a record: by hash, so the same ones every time."""
        if self.config.sample_fraction == 1:
            return
        limit = int(self.config.sample_fraction * 2**64)
        for row in np.flatnonzero(self.outcome == IS_KEPT).tolist():
            # Another hash than the key's: a part chosen by key would be the first shards, not a part of each.
            digest = hashlib.blake2b(self.sample_ids[row], digest_size=8, person=b"sample").digest()
            if int.from_bytes(digest, "big") >= limit:
                self.outcome[row] = IS_NOT_SAMPLED

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

        wanted = self.outcome[rows] == IS_KEPT
        rows, first_pixel = rows[wanted], first_pixel[wanted]
        samples = preprocess_records(octets, first_pixel, self.width[rows], self.height[rows], self.config.preprocess)
        self.outcome[rows], self.crop[rows] = samples.outcome, samples.crop
        kept = np.flatnonzero(samples.outcome == IS_KEPT)
        if self.config.image_encoding == "png":
            encoded = [encode_png(samples.image[i]) for i in kept.tolist()]
            self.images += b"".join(encoded)
            self.image_bytes[rows[kept]] = [len(png) for png in encoded]
        else:
            packed, self.image_bytes[rows[kept]] = pack(samples.image, kept)
            self.images += packed.data


def _key(sample_id: bytes) -> bytes:
    """The 64 bits by which a record finds its shard and its place there."""
    return hashlib.blake2b(sample_id, digest_size=8).digest()
