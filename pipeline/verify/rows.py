"""The rows of one manifest part: each against the contract, against the class list and against the card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.shards.staging import shard_of
from pipeline.source.gnt import HEADER_BYTES
from pipeline.verify.findings import Findings
from schemas.classes import OUTSIDE, ClassList, characters_by_tag_code
from schemas.dataset import MemberInput
from schemas.example import sample_id_prefix
from schemas.manifest import (
    CROP_COLUMNS,
    DROP_REASONS,
    DROPPED,
    KEPT,
    MANIFEST_SCHEMA,
    OUTSIDE_CLASS_SET,
    REJECT_REASONS,
    REJECTED,
    SHARD_FIELDS,
)

_HEADER = ("width", "height", "tag")
_REASONS: dict[str, set[str | None]] = {KEPT: {None}, DROPPED: {*DROP_REASONS}, REJECTED: {*REJECT_REASONS}}


@dataclass(frozen=True)
class Part:
    """Which part of which split the rows should be."""

    split: str
    index: int
    count: int
    shard: str
    members: Mapping[str, MemberInput]
    """The split's members on the card, by name."""
    classes: ClassList | None
    """None if the data set's class list can't be read: then labels aren't compared."""


def check_rows(rows: pa.Table, part: Part, findings: Findings) -> bool:
    """Adds what is wrong with the rows; False if their columns aren't the manifest's and nothing can be compared."""
    if not rows.schema.equals(MANIFEST_SCHEMA):
        findings.add(f"expected the manifest's columns {MANIFEST_SCHEMA.names}, found {rows.schema.names}")
        return False
    nulls = [
        name for name in MANIFEST_SCHEMA.names if not MANIFEST_SCHEMA.field(name).nullable and rows[name].null_count
    ]
    if nulls:
        findings.add(f"expected a value in every row of {', '.join(nulls)}, found rows without")
        return False
    check = _Rows(rows, part, findings)
    check.identity()
    check.order()
    check.status()
    check.labels()
    check.measures()
    check.places()
    return True


class _Rows:
    """The columns as arrays, and the checks on them."""

    def __init__(self, rows: pa.Table, part: Part, findings: Findings) -> None:
        self.rows, self.part, self.findings = rows, part, findings
        self.sample_id: list[str] = rows["sample_id"].to_pylist()
        self.kept = np.array([status == KEPT for status in rows["status"].to_pylist()], bool)
        self.sound = self.present("bitmap_digest")

    def present(self, name: str) -> np.ndarray:
        """bool [n]: where the column has a value."""
        return self.rows[name].is_valid().to_numpy()

    def numbers(self, name: str) -> np.ndarray:
        """int64 [n], 0 where there is none."""
        return pc.fill_null(self.rows[name], 0).to_numpy().astype(np.int64)

    def wrong(self, where: np.ndarray, what: Callable[[int], str]) -> None:
        self.findings.add_where(where, lambda i: f"row {i:,} ({self.sample_id[i]}): {what(i)}; convert again")

    def given(self, name: str, where: np.ndarray) -> None:
        """A value where `where` (bool [n]) is true, and nowhere else."""
        self.wrong(
            self.present(name) != where,
            lambda i: f"expected {name} {'given' if where[i] else 'empty'}, found {self.rows[name][i].as_py()!r}",
        )

    def same(self, name: str, expected: list[object]) -> None:
        found = self.rows[name].to_pylist()
        self.wrong(
            np.array([a != b for a, b in zip(found, expected, strict=True)], bool),
            lambda i: f"expected {name} {expected[i]!r}, found {found[i]!r}",
        )

    def identity(self) -> None:
        """Who the record is: its name, its member's, and that it is there once."""
        n, members = len(self.sample_id), self.rows["member"].to_pylist()
        known = self.part.members
        self.same("split", [self.part.split] * n)
        self.wrong(
            np.array([member not in known for member in members], bool),
            lambda i: f"expected a member that is on the card, found {members[i]!r}",
        )
        for name in ("writer", "archive"):
            found = self.rows[name].to_pylist()
            expected = [getattr(known[m], name) if m in known else f for m, f in zip(members, found, strict=True)]
            self.same(name, expected)
        prefixes = {member: sample_id_prefix(self.part.split, member) for member in set(members)}
        indexes = self.rows["record_index"].to_pylist()
        self.same("sample_id", [f"{prefixes[m]}{i}" for m, i in zip(members, indexes, strict=True)])
        seen: set[str] = set()
        again = np.zeros(n, bool)
        for i, sample_id in enumerate(self.sample_id):
            again[i] = sample_id in seen
            seen.add(sample_id)
        self.wrong(again, lambda _: "expected every sample_id once, found it in an earlier row too")

    def order(self) -> None:
        """By key, and each row in the part that its key belongs to: so no record can be in two parts either."""
        digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in self.sample_id)
        keys = np.frombuffer(digests, ">u8").astype(np.uint64)
        backwards = np.concatenate([[False], keys[1:] < keys[:-1]])
        self.wrong(backwards, lambda i: f"expected rows in the order of their keys, found key {keys[i]:016x} too late")
        shard = shard_of(keys, self.part.count)
        self.wrong(
            shard != self.part.index,
            lambda i: f"expected it in part {shard[i]} of {self.part.count}, found it in part {self.part.index}",
        )

    def status(self) -> None:
        status, reason = self.rows["status"].to_pylist(), self.rows["reason"].to_pylist()
        self.wrong(
            np.array([r not in _REASONS.get(s, ()) for s, r in zip(status, reason, strict=True)], bool),
            lambda i: f"expected a status with one of its reasons, found {status[i]!r} with {reason[i]!r}",
        )
        outside = np.array([r == OUTSIDE_CLASS_SET for r in reason], bool)
        labelled = self.present("label")
        self.wrong(
            outside & labelled, lambda _: f"expected no label where the reason is {OUTSIDE_CLASS_SET}, found one"
        )
        self.wrong(self.kept & ~labelled, lambda _: "expected the label of a kept record, found none")

    def labels(self) -> None:
        """The tag decides the character and the label."""
        tags = self.rows["tag"].to_pylist()
        codes = {tag: _tag_code(tag) for tag in set(tags)}
        self.wrong(
            np.array([codes[tag] is None for tag in tags], bool), lambda i: f"expected a tag in hex, found {tags[i]!r}"
        )
        named = [code for code in codes.values() if code is not None and code >= 0]
        characters: dict[int | None, str | None] = dict(zip(named, characters_by_tag_code(named), strict=True))
        self.same("char", [characters.get(codes[tag]) for tag in tags])
        if self.part.classes is not None:
            table = self.part.classes.labels_by_tag_code
            labels: dict[int | None, int | None] = {code: int(table[code]) for code in named if table[code] != OUTSIDE}
            self.same("label", [labels.get(codes[tag]) for tag in tags])

    def measures(self) -> None:
        """What the header says, and what was measured in the bitmap."""
        for name in _HEADER:
            self.given(name, self.sound | self.present(name))
        area = self.numbers("width") * self.numbers("height")
        size = self.numbers("source_bytes")
        self.wrong(
            self.sound & (size != HEADER_BYTES + area),
            lambda i: f"expected source_bytes {HEADER_BYTES + area[i]:,} by its width and height, found {size[i]:,}",
        )
        ink = pc.fill_null(self.rows["ink_fraction"], -1.0).to_numpy()
        self.wrong(
            np.where(self.sound, (ink < 0) | (ink > 1) | ~np.isfinite(ink), self.present("ink_fraction")),
            lambda i: f"expected an ink_fraction where the bitmap was read, from 0 to 1, found {ink[i]}",
        )
        x, y, width, height = (self.numbers(name) for name in CROP_COLUMNS)
        outside = (x + width > self.numbers("width")) | (y + height > self.numbers("height")) | (width * height == 0)
        self.wrong(
            self.kept & outside, lambda i: f"expected a crop in the bitmap, found {x[i], y[i], width[i], height[i]}"
        )
        for name in CROP_COLUMNS:
            self.given(name, self.kept)
        self.wrong(self.kept & ~self.sound, lambda _: "expected the bitmap_digest of a kept record, found none")

    def places(self) -> None:
        """Where the Examples lie: one after the other, from the shard's first byte."""
        for field in SHARD_FIELDS:
            self.given(field.name, self.kept)
        names = self.rows["shard"].to_pylist()
        self.wrong(
            np.array([name not in (None, self.part.shard) for name in names], bool),
            lambda i: f"expected shard {self.part.shard}, found {names[i]!r}",
        )
        index = self.numbers("shard_index")
        position = np.cumsum(self.kept) - 1
        self.wrong(
            self.kept & (index != position), lambda i: f"expected shard_index {position[i]:,}, found {index[i]:,}"
        )
        offset, length = self.numbers("shard_offset"), np.where(self.kept, self.numbers("shard_bytes"), 0)
        begin = np.cumsum(length) - length
        self.wrong(self.kept & (offset != begin), lambda i: f"expected shard_offset {begin[i]:,}, found {offset[i]:,}")


def _tag_code(tag: str | None) -> int | None:
    """The code of a tag in hex: -1 where there is no tag, None where it isn't one."""
    if tag is None:
        return -1
    try:
        code = bytes.fromhex(tag)
    except ValueError:
        return None
    return int.from_bytes(code, "big") if len(code) == 2 and code.hex() == tag else None
