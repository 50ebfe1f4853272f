"""One record from its bytes in the archive to its Example, and whether its manifest row says the same."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import xxhash

from pipeline import storage
from pipeline.shards.tfrecord.frames import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, encode_example, image_encoder
from pipeline.source.gnt import HEADER_BYTES, MAX_RECORD_BYTES
from pipeline.source.members import Member, open_member, read_exactly
from pipeline.steps.plain import Unusable, pin_opencv, preprocess
from pipeline.steps.settings import PAPER, PreprocessConfig
from pipeline.verify.example import read_example, read_image
from pipeline.verify.findings import Finding, Findings
from schemas.classes import OUTSIDE, ClassList
from schemas.errors import UserError
from schemas.example import ImageEncoding
from schemas.manifest import (
    CROP_COLUMNS,
    DROPPED,
    EMPTY_BITMAP,
    HEADER_MISMATCH,
    KEPT,
    NOT_SAMPLED,
    OUTSIDE_CLASS_SET,
    OVERSIZED,
    REJECTED,
    TRUNCATED,
)

_RECOMPUTED = ("status", "reason", "label", "tag", "width", "height", "ink_fraction", *CROP_COLUMNS, "bitmap_digest")
_HEADER = struct.Struct("<I2sHH")


@dataclass(frozen=True)
class Recipe:
    """What was to be made of the records, from the card."""

    classes: ClassList
    preprocess: PreprocessConfig
    image_encoding: ImageEncoding
    sample_fraction: float
    advice: str
    """What to do about a record that doesn't agree."""


@dataclass(frozen=True)
class SourceJob:
    """Some records of one member."""

    member: Member
    rows: pa.Table
    """Of the manifest, in the archive's order."""
    recipe: Recipe
    folder: str


def check_records(job: SourceJob) -> list[Finding]:
    """What the archive says otherwise than the rows."""
    pin_opencv()
    member, recipe = job.member, job.recipe
    findings = Findings(f"{member.name} of {member.archive}")
    try:
        with open_member(member) as stream:
            reader = MemberReader(stream, member)
            for row in _rows(job.rows):
                wanted = min(max(HEADER_BYTES, row["source_bytes"]), MAX_RECORD_BYTES)
                data = reader.read(row["source_offset"], wanted)
                for difference in _differences(row, data, member.size_bytes, recipe, job.folder):
                    where = f"record {row['record_index']:,} at byte {row['source_offset']:,}"
                    findings.add(f"{where}: {difference}; {recipe.advice}")
    except UserError as error:
        findings.add(str(error))
    return findings.all()


class MemberReader:
    """Stretches of a member, in order; what is packed can't be sought, only read on."""

    def __init__(self, stream: BinaryIO, member: Member) -> None:
        self.stream, self.member = stream, member
        self.at = 0
        self.kept = b""
        """The bytes before `at` that were read last: a stretch may reach into the next one."""

    def read(self, offset: int, size: int) -> bytes:
        size = min(size, self.member.size_bytes - offset)
        if self.member.random_access:
            self.stream.seek(self.member.data_offset + offset)
            return read_exactly(self.stream, size, self.member)
        known = self.kept[max(0, len(self.kept) - (self.at - offset)) :] if offset < self.at else b""
        while self.at < offset:
            self.at += len(read_exactly(self.stream, min(1 << 20, offset - self.at), self.member))
        fresh = read_exactly(self.stream, max(0, size - len(known)), self.member)
        self.at += len(fresh)
        self.kept = known + fresh
        return self.kept[:size]


def _rows(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches(max_chunksize=1_000):
        yield from batch.to_pylist()


def _differences(row: dict[str, Any], data: bytes, member_bytes: int, recipe: Recipe, folder: str) -> Iterator[str]:
    expected, example = _make(row, data, member_bytes, recipe)
    for name in _RECOMPUTED:
        if row[name] != expected[name]:
            yield f"the archive gives {name} {expected[name]!r}, the manifest says {row[name]!r}"
    if example is None or row["status"] != KEPT:
        return
    length = FRAME_HEADER_BYTES + len(example) + FRAME_FOOTER_BYTES
    # The shard's bytes were held against this CRC and this length already.
    if (google_crc32c.value(example), length) != (row["shard_crc32c"], row["shard_bytes"]):
        yield f"the archive gives another Example than {row['shard']} holds{_first_pixel(row, example, folder)}"


def _make(row: dict[str, Any], data: bytes, member_bytes: int, recipe: Recipe) -> tuple[dict[str, Any], bytes | None]:
    """(what the manifest should say, the Example if it is kept); a second implementation of convert_chunk's loop."""
    made: dict[str, Any] = {**dict.fromkeys(_RECOMPUTED), "status": REJECTED}
    if len(data) < HEADER_BYTES:
        return {**made, "reason": TRUNCATED}, None
    size, tag, width, height = _HEADER.unpack_from(data)
    label = int(recipe.classes.labels_by_tag_code[int.from_bytes(tag, "big")])
    made |= {"tag": tag.hex(), "width": width, "height": height, "label": None if label == OUTSIDE else label}
    made["reason"] = _fault(row, size, width * height, member_bytes)
    if made["reason"]:
        return made, None
    bitmap = np.frombuffer(data, np.uint8, width * height, HEADER_BYTES).reshape(height, width)
    made["bitmap_digest"] = xxhash.xxh3_64_intdigest(data[HEADER_BYTES - 4 : size])
    made["ink_fraction"] = float(np.float32(np.count_nonzero(bitmap != PAPER) / bitmap.size))
    if label == OUTSIDE:
        return {**made, "status": DROPPED, "reason": OUTSIDE_CLASS_SET}, None
    if not _is_sampled(row["sample_id"], recipe.sample_fraction):
        return {**made, "status": DROPPED, "reason": NOT_SAMPLED}, None
    try:
        image, crop = preprocess(bitmap, recipe.preprocess)
    except Unusable as unusable:
        return {**made, "reason": unusable.reason}, None
    made |= {"status": KEPT, "reason": None, **dict(zip(CROP_COLUMNS, crop, strict=True))}
    encoded = image_encoder(recipe.image_encoding)(image)
    return made, encode_example(encoded, label, row["sample_id"].encode())


def _fault(row: dict[str, Any], size: int, area: int, member_bytes: int) -> str | None:
    if size != HEADER_BYTES + area:
        return HEADER_MISMATCH
    if area == 0:
        return EMPTY_BITMAP
    if size > MAX_RECORD_BYTES:
        return OVERSIZED
    # Either the member ends inside the record, or the next one begins there.
    return TRUNCATED if row["source_offset"] + size > member_bytes or row["source_bytes"] < size else None


def _is_sampled(sample_id: str, fraction: float) -> bool:
    digest = hashlib.blake2b(sample_id.encode(), digest_size=8, person=b"sample").digest()
    return fraction == 1 or int.from_bytes(digest, "big") < int(fraction * 2**64)


def _first_pixel(row: dict[str, Any], example: bytes, folder: str) -> str:
    """Where the shard's image differs first, for a message."""
    if None in (row["shard"], row["shard_offset"], row["shard_bytes"]) or "/" in row["shard"]:
        return ""  # found among the rows already
    found = read_example(storage.join(folder, row["shard"]), row["shard_offset"], row["shard_bytes"])
    there, made = read_image(found) or b"", read_image(example) or b""
    for i, (a, b) in enumerate(zip(there, made, strict=False)):
        if a != b:
            return f": byte {i:,} of the image is {b} by the archive, {a} in the shard"
    return ""
