"""The Parquet manifest: one row for every record read, kept, dropped or rejected."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

Status = Literal["kept", "dropped", "rejected"]
KEPT: Status = "kept"
DROPPED: Status = "dropped"
REJECTED: Status = "rejected"

# Why a record was dropped. It was readable; the configuration leaves it out.
OUTSIDE_CLASS_SET = "outside_class_set"
NOT_SAMPLED = "not_sampled"
DROP_REASONS = {
    OUTSIDE_CLASS_SET: "its character isn't in the class list",
    NOT_SAMPLED: "--sample_fraction left it out",
}

# Why a record was rejected. It is broken, or its picture can't be used.
HEADER_MISMATCH = "header_mismatch"
EMPTY_BITMAP = "empty_bitmap"
OVERSIZED = "oversized"
TRUNCATED = "truncated"
BLANK = "blank"
LARGER_THAN_IMAGE = "larger_than_image"
REJECT_REASONS = {
    HEADER_MISMATCH: "size, width and height in its header disagree",
    EMPTY_BITMAP: "its width or height is 0",
    OVERSIZED: "its header asks for more than any character needs",
    TRUNCATED: "it ends early: the member ends, or the next record begins, inside it",
    BLANK: "its picture holds no ink",
    LARGER_THAN_IMAGE: "with --resize=none its ink doesn't fit the image",
}

LOST_REASONS = (HEADER_MISMATCH, OVERSIZED, TRUNCATED)
"""Why the bytes of a record, and of whatever lies behind its header, are lost: what the limit on lost bytes counts."""

UNUSABLE_REASONS = (BLANK, LARGER_THAN_IMAGE)
"""Why a bitmap that can be read gives no sample."""


def _field(name: str, dtype: pa.DataType, meaning: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"meaning": meaning})


SOURCE_FIELDS = (
    _field("sample_id", pa.string(), "split/member/record_index; unique in the data set", nullable=False),
    _field("split", pa.string(), "train, validation or test", nullable=False),
    _field("status", pa.string(), "kept, dropped or rejected", nullable=False),
    _field("reason", pa.string(), "why it was dropped or rejected; null if kept"),
    _field("label", pa.int16(), "index into classes.txt; null outside the class list"),
    _field("char", pa.string(), "the character; null where no codec knows the tag"),
    _field("tag", pa.string(), "the two raw tag bytes, in hex; null if the record ends before them"),
    _field("writer", pa.string(), "the person who wrote it: the member's name without its suffix", nullable=False),
    _field("archive", pa.string(), "base name of the downloaded file", nullable=False),
    _field("member", pa.string(), "base name of the .gnt", nullable=False),
    _field("record_index", pa.uint32(), "position in the member, from 0", nullable=False),
    _field("source_offset", pa.uint64(), "first byte of the record in the .gnt, in bytes", nullable=False),
    _field("source_bytes", pa.uint64(), "length of the record in the .gnt, in bytes", nullable=False),
    _field("width", pa.uint16(), "as the header says, in pixels; null if the record ends before it"),
    _field("height", pa.uint16(), "as the header says, in pixels; null if the record ends before it"),
    _field("ink_fraction", pa.float32(), "share of the bitmap's pixels that aren't paper (below 255)"),
    _field("crop_x", pa.uint16(), "left edge of the crop in the bitmap, in pixels"),
    _field("crop_y", pa.uint16(), "top edge of the crop in the bitmap, in pixels"),
    _field("crop_width", pa.uint16(), "width of the crop, in pixels"),
    _field("crop_height", pa.uint16(), "height of the crop, in pixels"),
    _field(
        "bitmap_digest", pa.uint64(), "XXH3-64 of width, height (uint16 LE) and the bitmap; equal for equal bitmaps"
    ),
)
"""What the source and its conversion say of a record."""

CROP_COLUMNS = ("crop_x", "crop_y", "crop_width", "crop_height")

SHARD_FIELDS = (
    _field("shard", pa.string(), "file that holds the Example; null unless kept"),
    _field("shard_index", pa.uint32(), "position of the Example in its shard, from 0"),
    _field("shard_offset", pa.uint64(), "first byte of the TFRecord frame in the shard, in bytes"),
    _field("shard_bytes", pa.uint32(), "length of the frame: 12 bytes of header, the Example, 4 bytes of CRC"),
    _field("shard_crc32c", pa.uint32(), "CRC-32C of the serialised Example, not masked"),
)
"""Where the Example of a kept record lies."""

MANIFEST_SCHEMA = pa.schema([*SOURCE_FIELDS, *SHARD_FIELDS])
