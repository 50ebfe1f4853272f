"""The row of a record while it is staged: of one length, whatever the record; and the manifest's columns of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.source import gnt
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

OUTCOMES = (
    (KEPT, None),
    *((REJECTED, reason) for reason in (*UNUSABLE_REASONS, *gnt.FAULTS[1:])),
    (DROPPED, OUTSIDE_CLASS_SET),
    (DROPPED, NOT_SAMPLED),
)
"""What becomes of a record: its status and the reason. The first ones are the outcomes of the six steps."""
IS_KEPT, IS_OUTSIDE, IS_NOT_SAMPLED = 0, len(OUTCOMES) - 2, len(OUTCOMES) - 1
OF_FAULT = {gnt.SOUND: IS_KEPT, **{fault: OUTCOMES.index((REJECTED, fault)) for fault in gnt.FAULTS[1:]}}
_FAULTY = [outcome for fault, outcome in OF_FAULT.items() if fault]
_LOST = [OUTCOMES.index((REJECTED, reason)) for reason in LOST_REASONS]

ROW = np.dtype(
    [
        ("key", "<u8"),  # by which a record finds its shard and its place there
        ("bitmap_digest", "<u8"),
        ("source_offset", "<u8"),
        ("source_bytes", "<u4"),
        ("record_index", "<u4"),
        ("image_bytes", "<u4"),  # of a kept record its PNG, or its raw image packed (packing.py); 0 otherwise
        ("tag_code", "<i4"),
        ("source", "<u4"),  # position of its Source, where it is staged with those of others
        ("ink_fraction", "<f4"),
        ("width", "<u2"),
        ("height", "<u2"),
        ("crop", "<u2", len(CROP_COLUMNS)),
        ("label", "<i2"),
        ("outcome", "u1"),  # index into OUTCOMES
        ("unused", "u1"),
    ]
)


class Source(NamedTuple):
    """Where the records of a chunk come from."""

    split: str
    member: str
    writer: str
    archive: str


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows, and their images."""

    rows: np.ndarray
    """ROW [n]"""
    begin: np.ndarray
    """int64 [n]: the first byte of each image in `octets`."""
    octets: memoryview

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, which: np.ndarray) -> Part:
        """Some of them, in that order; the images stay where they are."""
        return Part(self.rows[which], self.begin[which], self.octets)

    def joined(self) -> Part:
        """The same with its images the one behind the other."""
        end = self.begin + self.rows["image_bytes"]
        images = b"".join([self.octets[a:b] for a, b in zip(self.begin.tolist(), end.tolist(), strict=True)])
        return Part(self.rows, begins(self.rows["image_bytes"]), memoryview(images))


def begins(sizes: np.ndarray) -> np.ndarray:
    """int64 [n]: where each begins, the one behind the other."""
    ends = np.cumsum(sizes, dtype=np.int64)
    return ends - sizes


def columns(rows: np.ndarray, sources: Sequence[Source]) -> dict[str, pa.Array]:
    """What the manifest says of them; `sources` are those that the rows name by position."""
    import pyarrow.compute as pc  # 0.05 s, which a driver whose workers write the shards needn't wait for

    source, outcome = pa.array(rows["source"]), pa.array(rows["outcome"])
    code, where = np.unique(rows["tag_code"], return_inverse=True)
    tags = [_character_and_tag(each) for each in code.tolist()]
    has_header, is_kept = rows["tag_code"] >= 0, rows["outcome"] == IS_KEPT
    is_sound = ~np.isin(rows["outcome"], _FAULTY)

    def of_source(values: list[str]) -> pa.Array:
        return pa.array(values, pa.string()).take(source)

    prefix = of_source([sample_id_prefix(each.split, each.member) for each in sources])
    index = pa.array(rows["record_index"], pa.uint32())
    return {
        "sample_id": pc.binary_join_element_wise(prefix, index.cast(pa.string()), ""),
        "split": of_source([each.split for each in sources]),
        "status": pa.array([status for status, _ in OUTCOMES], pa.string()).take(outcome),
        "reason": pa.array([reason for _, reason in OUTCOMES], pa.string()).take(outcome),
        "label": _masked(rows["label"], rows["label"] != OUTSIDE, pa.int16()),
        "char": pa.array([character for character, _ in tags], pa.string()).take(pa.array(where)),
        "tag": pa.array([tag for _, tag in tags], pa.string()).take(pa.array(where)),
        "writer": of_source([each.writer for each in sources]),
        "archive": of_source([each.archive for each in sources]),
        "member": of_source([each.member for each in sources]),
        "record_index": index,
        "source_offset": pa.array(rows["source_offset"], pa.uint64()),
        "source_bytes": pa.array(rows["source_bytes"], pa.uint32()).cast(pa.uint64()),
        "width": _masked(rows["width"], has_header, pa.uint16()),
        "height": _masked(rows["height"], has_header, pa.uint16()),
        "ink_fraction": _masked(rows["ink_fraction"], is_sound, pa.float32()),
        **{name: _masked(rows["crop"][:, i], is_kept, pa.uint16()) for i, name in enumerate(CROP_COLUMNS)},
        "bitmap_digest": _masked(rows["bitmap_digest"], is_sound, pa.uint64()),
    }


class Tally:
    """What rows add up to: how many had which outcome, and a sum that shows whether others are the same records."""

    def __init__(self) -> None:
        self.keys = self.lost_bytes = 0
        """The keys, which are hashes, modulo 2^64; bytes of records rejected for one of LOST_REASONS."""
        self._counts = Counter[str]()

    def add(self, rows: np.ndarray) -> None:
        self.keys = (self.keys + int(rows["key"].sum(dtype=np.uint64))) % 2**64
        counts = np.bincount(rows["outcome"], minlength=len(OUTCOMES)).tolist()
        for (status, reason), count in zip(OUTCOMES, counts, strict=True):
            if count:
                self._counts[" ".join(filter(None, (status, reason)))] += count
        self.lost_bytes += int(rows["source_bytes"][np.isin(rows["outcome"], _LOST)].sum(dtype=np.int64))

    @property
    def counts(self) -> dict[str, int]:
        """By "kept" or "status reason"."""
        return dict(sorted(self._counts.items()))


@cache
def _character_and_tag(code: int) -> tuple[str | None, str | None]:
    """The tag's character and its hex; writers write the same characters, so each is looked up once."""
    tag = code.to_bytes(2, "big") if code >= 0 else None
    return (character_of(tag), tag.hex()) if tag else (None, None)


def _masked(values: np.ndarray, valid: np.ndarray, dtype: pa.DataType) -> pa.Array:
    return pa.array(np.where(valid, values, 0), dtype, mask=~valid)
