"""The rows of one manifest part: each against the contract, against the class list and against the card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.shards.slices import shard_of
from pipeline.source.gnt import HEADER_BYTES, MAX_RECORD_BYTES
from pipeline.steps.settings import PreprocessConfig
from pipeline.verify.findings import Findings
from schemas.classes import OUTSIDE, ClassList, characters_by_tag_code
from schemas.dataset import MemberInput, ShardFile
from schemas.example import sample_id_prefix
from schemas.manifest import (
    CROP_COLUMNS,
    DROP_REASONS,
    DROPPED,
    EMPTY_BITMAP,
    HEADER_MISMATCH,
    KEPT,
    LARGER_THAN_IMAGE,
    MANIFEST_SCHEMA,
    NOT_SAMPLED,
    OUTSIDE_CLASS_SET,
    OVERSIZED,
    REJECT_REASONS,
    REJECTED,
    TRUNCATED,
    UNUSABLE_REASONS,
)

_REASONS: dict[str, set[str | None]] = {KEPT: {None}, DROPPED: {*DROP_REASONS}, REJECTED: {*REJECT_REASONS}}


@dataclass(frozen=True)
class ShardJob:
    """A shard to check: where it lies, what the card says of it, what its rows should be."""

    folder: str
    split: str
    index: int
    count: int
    """How many shards the split has."""
    file: ShardFile
    members: Mapping[str, MemberInput]
    """The split's members on the card, by name."""
    classes: ClassList | None
    """None if the data set's class list can't be read: then labels aren't compared."""
    image_size: int
    image_encoding: str
    preprocess: PreprocessConfig | None
    """None if the card's steps are none that are known: then crops aren't compared with what became of them."""
    sample_fraction: float | None
    """None if the card doesn't say."""

    @property
    def bytes(self) -> int:
        return self.file.bytes + self.file.manifest_bytes


def check_rows(rows: pa.Table, job: ShardJob, findings: Findings) -> bool:
    """Adds what is wrong with the rows; False if their columns aren't the manifest's and nothing can be compared."""
    if not rows.schema.equals(MANIFEST_SCHEMA):
        findings.add(f"expected the manifest's columns {MANIFEST_SCHEMA.names}, found {rows.schema.names}")
        return False
    nulls = [field.name for field in MANIFEST_SCHEMA if not field.nullable and rows[field.name].null_count]
    if nulls:
        findings.add(f"expected a value in every row of {', '.join(nulls)}, found rows without")
        return False
    check = _Rows(rows, job, findings)
    check.identity()
    check.order()
    check.status()
    check.faults()
    check.sampling()
    check.labels()
    check.measures()
    check.places()
    return True


class _Rows:
    """The columns as arrays, and the checks on them."""

    def __init__(self, rows: pa.Table, job: ShardJob, findings: Findings) -> None:
        self.rows, self.job, self.findings = rows, job, findings
        self.sample_id: list[str] = rows["sample_id"].to_pylist()
        self.kept = self.values("status") == KEPT
        self.sound = self.present("bitmap_digest")

    def values(self, name: str) -> np.ndarray:
        """object [n], None where there is no value."""
        return np.array(self.rows[name].to_pylist(), object)

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

    def same(self, name: str, expected: Sequence[object]) -> None:
        found = self.values(name)
        wrong = found != np.array(expected, object)
        self.wrong(wrong, lambda i: f"expected {name} {expected[i]!r}, found {found[i]!r}")

    def identity(self) -> None:
        """Who the record is: its name, its member's, and that it is there once."""
        split, known = self.job.split, self.job.members
        members = self.values("member")
        self.same("split", [split] * len(members))
        self.wrong(
            np.array([member not in known for member in members], bool),
            lambda i: f"expected a member that is on the card, found {members[i]!r}",
        )
        for name in ("writer", "archive"):
            found = self.values(name)
            self.same(name, [getattr(known[m], name) if m in known else f for m, f in zip(members, found, strict=True)])
        indexes = self.values("record_index")
        self.same("sample_id", [f"{sample_id_prefix(split, m)}{i}" for m, i in zip(members, indexes, strict=True)])
        again = np.ones(len(members), bool)
        codes = self.rows["sample_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        again[np.unique(codes, return_index=True)[1]] = False
        self.wrong(again, lambda _: "expected every sample_id once, found it in an earlier row too")

    def order(self) -> None:
        """By key, and each row in the part that its key belongs to: so no record can be in two parts either."""
        digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in self.sample_id)
        keys = np.frombuffer(digests, ">u8").astype(np.uint64)
        backwards = np.concatenate([[False], keys[1:] < keys[:-1]])
        self.wrong(backwards, lambda i: f"expected rows in the order of their keys, found key {keys[i]:016x} too late")
        index, count = self.job.index, self.job.count
        shard = shard_of(keys, count)
        self.wrong(shard != index, lambda i: f"expected it in part {shard[i]} of {count}, found it in part {index}")

    def status(self) -> None:
        status, reason = self.values("status"), self.values("reason")
        self.wrong(
            np.array([r not in _REASONS.get(s, ()) for s, r in zip(status, reason, strict=True)], bool),
            lambda i: f"expected a status with one of its reasons, found {status[i]!r} with {reason[i]!r}",
        )
        outside, labelled = reason == OUTSIDE_CLASS_SET, self.present("label")
        said = f"expected no label where the reason is {OUTSIDE_CLASS_SET}, found one"
        self.wrong(outside & labelled, lambda _: said)
        self.wrong(self.kept & ~labelled, lambda _: "expected the label of a kept record, found none")
        chosen = np.isin(reason.astype(str), (NOT_SAMPLED, *UNUSABLE_REASONS))
        self.wrong(
            chosen & ~labelled,
            lambda i: f"expected the reason {OUTSIDE_CLASS_SET} where there is no label, found {reason[i]}",
        )

    def faults(self) -> None:
        """The reasons that the header and the length give."""
        reason = self.values("reason")
        has_header = self.present("width") & self.present("height") & self.present("tag")
        area, length = self.numbers("width") * self.numbers("height"), self.numbers("source_bytes")
        asked = HEADER_BYTES + area
        steps = self.job.preprocess
        largest = np.maximum(self.numbers("width"), self.numbers("height"))
        never = np.zeros(len(reason), bool)
        too_large = never if steps is None else np.full(len(reason), steps.resize == "none")
        if steps is not None and steps.resize == steps.crop == "none":
            too_large = largest > steps.image_size
        holds = {
            EMPTY_BITMAP: has_header & (area == 0),
            HEADER_MISMATCH: has_header,
            OVERSIZED: has_header & (asked > MAX_RECORD_BYTES),
            TRUNCATED: ~has_header | (length < asked),
            **({LARGER_THAN_IMAGE: too_large} if steps is not None else {}),
        }
        for name, where in holds.items():
            self.wrong(
                (reason == name) & ~where,
                lambda i, name=name: (  # type: ignore[misc]
                    f"expected another reason than {name} for {length[i]:,} bytes of {self.numbers('width')[i]:,} × "
                    f"{self.numbers('height')[i]:,} pixels"
                ),
            )
        self.wrong(
            self.sound & (area == 0), lambda _: f"expected the reason {EMPTY_BITMAP} for a bitmap without pixels"
        )

    def sampling(self) -> None:
        """A hash of its name decides whether --sample_fraction keeps a record."""
        fraction = self.job.sample_fraction
        if fraction is None:
            return
        limit = int(fraction * 2**64)
        inside = np.ones(len(self.sample_id), bool)
        if fraction != 1:
            digests = (hashlib.blake2b(s.encode(), digest_size=8, person=b"sample").digest() for s in self.sample_id)
            inside = np.array([int.from_bytes(digest, "big") < limit for digest in digests], bool)
        reason = self.values("reason").astype(str)
        left_out, chosen = reason == NOT_SAMPLED, self.kept | np.isin(reason, UNUSABLE_REASONS)
        said = f"by its hash and the card's sample_fraction, {fraction:g}"
        self.wrong(left_out & inside, lambda _: f"expected a record that is used {said}, found it {NOT_SAMPLED}")
        self.wrong(chosen & ~inside, lambda _: f"expected the reason {NOT_SAMPLED} {said}, found it used")

    def labels(self) -> None:
        """The tag decides the character and the label."""
        tags = self.values("tag")
        codes = {tag: _tag_code(tag) for tag in set(tags)}
        wrong = np.array([codes[tag] is None for tag in tags], bool)
        self.wrong(wrong, lambda i: f"expected a tag in hex, found {tags[i]!r}")
        named = [code for code in codes.values() if code is not None and code >= 0]
        characters: dict[int | None, str | None] = dict(zip(named, characters_by_tag_code(named), strict=True))
        self.same("char", [characters.get(codes[tag]) for tag in tags])
        if self.job.classes is not None:
            table = self.job.classes.labels_by_tag_code
            labels: dict[int | None, int | None] = {code: int(table[code]) for code in named if table[code] != OUTSIDE}
            self.same("label", [labels.get(codes[tag]) for tag in tags])

    def measures(self) -> None:
        """What the header says, and what was measured in the bitmap."""
        for name in ("width", "height", "tag"):
            self.given(name, self.sound | self.present(name))
        size, expected = self.numbers("source_bytes"), HEADER_BYTES + self.numbers("width") * self.numbers("height")
        self.wrong(
            self.sound & (size != expected),
            lambda i: f"expected source_bytes {expected[i]:,} by its width and height, found {size[i]:,}",
        )
        ink = pc.fill_null(self.rows["ink_fraction"], -1.0).to_numpy()
        self.wrong(
            np.where(self.sound, ~((ink >= 0) & (ink <= 1)), self.present("ink_fraction")),
            lambda i: f"expected an ink_fraction where the bitmap was read, from 0 to 1, found {ink[i]}",
        )
        area = self.numbers("width") * self.numbers("height")
        pixels = np.rint(np.where(self.sound, ink, 0).astype(np.float64) * area)
        exact = (pixels / np.maximum(area, 1)).astype(np.float32) == ink
        self.wrong(
            self.sound & (ink >= 0) & (ink <= 1) & ~exact,
            lambda i: f"expected an ink_fraction of whole pixels of {area[i]:,}, found {ink[i]}",
        )
        self.wrong(
            self.kept & (ink == 0), lambda _: "expected ink in a bitmap that is kept, found an ink_fraction of 0"
        )
        crop = np.array([self.numbers(name) for name in CROP_COLUMNS])
        x, y, width, height = crop
        outside = (x + width > self.numbers("width")) | (y + height > self.numbers("height")) | (width * height == 0)
        self.wrong(self.kept & outside, lambda i: f"expected a crop in the bitmap, found {tuple(crop[:, i].tolist())}")
        if self.job.preprocess is not None and self.job.preprocess.crop == "none":
            other = (x != 0) | (y != 0) | (width != self.numbers("width")) | (height != self.numbers("height"))
            self.wrong(
                self.kept & other,
                lambda i: f"expected the whole bitmap with --crop=none, found the crop {tuple(crop[:, i].tolist())}",
            )
        for name in CROP_COLUMNS:
            self.given(name, self.kept)
        readable = self.kept | (self.values("status") == DROPPED)
        self.given("bitmap_digest", readable | np.isin(self.values("reason").astype(str), UNUSABLE_REASONS))

    def places(self) -> None:
        """Where the Examples lie: one after the other, from the shard's first byte."""
        for name in ("shard", "shard_bytes", "shard_crc32c"):
            self.given(name, self.kept)
        shards, shard = self.values("shard"), self.job.file.path
        elsewhere = self.present("shard") & (shards != shard)
        self.wrong(elsewhere, lambda i: f"expected shard {shard}, found {shards[i]!r}")
        length = np.where(self.kept, self.numbers("shard_bytes"), 0)
        for name, place in (("shard_index", np.cumsum(self.kept) - 1), ("shard_offset", np.cumsum(length) - length)):
            self.same(name, [at if kept else None for at, kept in zip(place.tolist(), self.kept, strict=True)])


def _tag_code(tag: str | None) -> int | None:
    """The code of a tag in hex: -1 where there is no tag, None where it isn't one."""
    if tag is None:
        return -1
    try:
        code = bytes.fromhex(tag)
    except ValueError:
        return None
    return int.from_bytes(code, "big") if len(code) == 2 and code.hex() == tag else None
