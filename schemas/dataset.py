"""dataset.json, the card of a data set: what it holds, how it was made, and every path in it.

The card is written last. A folder without one is an unfinished conversion, and every reader says so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import UserError
from schemas.example import FORMAT_VERSION, IMAGE_ENCODINGS
from schemas.parsing import count_of, parsed, shown

CARD = "dataset.json"
CLASSES = "classes.txt"
TFDS_INFO = "dataset_info.json"
TFDS_FEATURES = "features.json"
TFDS_LABELS = "label.labels.txt"
SIDE_FILES = (CLASSES, TFDS_LABELS, TFDS_INFO, TFDS_FEATURES)
LOCK = "_lock.json"
"""Held by a conversion at work in the folder."""
UNFINISHED = "_unfinished.json"
"""Vouches for what an unfinished conversion has written there."""
MANIFEST_FOLDER = "manifest"
STAGING_FOLDER = "_staging"

SPLITS = ("train", "validation", "test")
MAX_SHARDS = 99_999
"""What five digits in a file's name can count."""


class DatasetError(UserError):
    """A data set that can't be read."""


class DamagedCard(DatasetError):
    """A card that isn't what was written."""


_NUMBERED = re.compile(r"(?:.*/)?(\w+)-([0-9]{5})-of-([0-9]{5})\.\w+")


def shard_name(split: str, index: int, count: int) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def index_name(shard: str) -> str:
    """The index file of a shard for NVIDIA DALI's reader, if someone had it written."""
    return shard.removesuffix(".tfrecord") + ".idx"


def manifest_part_name(split: str, index: int, count: int) -> str:
    return f"{MANIFEST_FOLDER}/{split}-{index:05d}-of-{count:05d}.parquet"


def place_of(path: str) -> tuple[str, int, int] | None:
    """(split, index, count) of a shard or manifest part by its path relative to a data set's folder; None of others."""
    numbered = _NUMBERED.fullmatch(path)
    if numbered is None:
        return None
    of = numbered[1], int(numbered[2]), int(numbered[3])
    return of if path in (shard_name(*of), manifest_part_name(*of)) else None


def is_own_name(path: str) -> bool:
    """Whether a path relative to a data set's folder is one that a conversion writes."""
    return path == CARD or path in SIDE_FILES or place_of(path) is not None


@dataclass(frozen=True)
class ShardFile:
    """A TFRecord file with the manifest part of the records that belong to it, kept or not."""

    path: str
    """Relative to the data set's folder."""
    records: int
    bytes: int
    sha256: str
    manifest_path: str
    manifest_rows: int
    manifest_bytes: int
    manifest_sha256: str


@dataclass(frozen=True)
class Counts:
    """What became of the records read: read = kept + dropped + rejected."""

    read: int
    kept: int
    dropped: Mapping[str, int]
    """By reason."""
    rejected: Mapping[str, int]
    """By reason."""

    @property
    def by_status(self) -> dict[str, int]:
        return {"kept": self.kept, "dropped": sum(self.dropped.values()), "rejected": sum(self.rejected.values())}


@dataclass(frozen=True)
class Split:
    counts: Counts
    characters: int
    """Distinct labels among the kept records."""
    writers: int
    shards: Sequence[ShardFile]


@dataclass(frozen=True)
class MemberInput:
    """A .gnt that went in."""

    split: str
    location: str
    """Where its archive lay."""
    archive: str
    member: str
    writer: str
    bytes: int
    counts: Counts
    lost_bytes: int | None = None
    """Of `bytes`, those of records whose header is broken or that end early; None before format 1.2.0."""
    what: str | None = None
    """What a member without one sound record is instead, told from its first bytes; None where nothing tells."""


@dataclass(frozen=True)
class PassedFile:
    """A file, or an entry of a zip, that is neither a .gnt nor a zip of them."""

    location: str
    """Where it lay, or where the zip lay that holds it."""
    name: str
    """Base name; in a zip with its folders."""
    what: str
    """As pipeline/source/kinds.py calls it."""


@dataclass(frozen=True)
class PassedOver:
    """What lay in the inputs and was not read."""

    count: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    """By what it is."""
    files: Sequence[PassedFile] = ()
    """The first ones, at most MOST_PASSED: those that may hold handwriting before the others."""


MOST_PASSED = 100
"""Names of passed over files on a card."""


@dataclass(frozen=True)
class Origin:
    """Where the handwriting comes from, and on what terms."""

    name: str
    license: str | None = None
    citation: str | None = None
    """BibTeX."""
    homepage: str | None = None


@dataclass(frozen=True)
class Card:
    format_version: str
    config: Mapping[str, Any]
    class_count: int
    class_digest: str
    """SHA-256 of classes.txt."""
    libraries: Mapping[str, str]
    splits: Mapping[str, Split]
    inputs: Sequence[MemberInput]
    passed_over: PassedOver | None = None
    """None before format 1.2.0."""
    origin: Origin | None = None
    """None where nobody said."""

    @property
    def image_size(self) -> int:
        return int(self.config["preprocess"]["image_size"])

    @property
    def image_encoding(self) -> str:
        return str(self.config["image_encoding"])

    def split(self, name: str) -> Split:
        """Raises DatasetError where the data set has no such split."""
        if name not in self.splits:
            raise DatasetError(f"the data set has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def to_json(self) -> str:
        """The text of dataset.json: its last field is the SHA-256 of the others, so that no change goes unnoticed."""
        fields = asdict(self, dict_factory=_without_none)
        return _dumps({**fields, "digest": _digest(fields)}) + "\n"


def parse_card(text: str | bytes, where: str) -> Card:
    """The card in `text` (bytes: UTF-8); `where` is named in errors.

    Its splits and files have the only names they can have: others could lead anywhere.
    Raises DamagedCard for one that isn't what was written, DatasetError for a foreign version.
    """
    try:
        found = json.loads(text)
        version = str(found["format_version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCard(f"{where}: expected the card of a data set, found something else; convert again") from error
    digest = found.pop("digest", None)
    if digest != _digest(found):
        raise DamagedCard(
            f"{where}: expected the card as it was written, found it changed; restore it from a copy, or convert again"
        )
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise DatasetError(
            f"{where}: expected format version {FORMAT_VERSION.split('.')[0]}.x, found {version}; "
            "read it with the release that wrote it, or convert again"
        )
    try:
        card: Card = parsed(Card, found, "the card", _PARTS)
        _check_counts(card)
    except ValueError as error:
        raise DamagedCard(f"{where}: {error}; convert again") from error
    for name, split in card.splits.items():
        if name not in SPLITS:
            raise DamagedCard(f"{where}: expected the splits {', '.join(SPLITS)}, found {name!r}; convert again")
        for index, file in enumerate(split.shards):
            of = (name, index, len(split.shards))
            if (file.path, file.manifest_path) != (shard_name(*of), manifest_part_name(*of)):
                raise DamagedCard(
                    f"{where}: expected {shard_name(*of)} and {manifest_part_name(*of)}, found {file.path} and "
                    f"{file.manifest_path}; convert again"
                )
    return card


def read_card(folder: str | Path) -> Card:
    """The card of the data set in a local folder. Raises DatasetError if there is none."""
    path = Path(folder) / CARD
    if not path.is_file():
        if not Path(folder).is_dir():
            raise DatasetError(f"{folder}: expected the folder of a data set, found none; name one, or convert first")
        raise DatasetError(
            f"{folder}: expected {CARD}, found none; the conversion isn't finished, or this is another folder"
        )
    return parse_card(path.read_bytes(), str(path))


def _without_none(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """What isn't known isn't written: so a card of an earlier format comes out as it went in."""
    return {name: value for name, value in fields if value is not None}


def _dumps(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, indent=1)


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dumps(fields).encode("utf-8", "surrogatepass")).hexdigest()


_PARTS = (ShardFile, Counts, Split, MemberInput, PassedFile, PassedOver, Origin)


def _check_counts(card: Card) -> None:
    """Raises ValueError where the counts can't be: they are what a reader makes room by."""
    steps, encoding = card.config.get("preprocess"), card.config.get("image_encoding")
    if not isinstance(steps, dict) or encoding not in IMAGE_ENCODINGS:
        raise ValueError(f"expected preprocess and image_encoding in its config, found {shown(card.config)}")
    if count_of(steps.get("image_size"), "image_size") == 0:
        raise ValueError("expected an image_size of 1 or more, found 0")
    for name, split in card.splits.items():
        if split.characters > min(card.class_count, split.counts.kept) or split.writers > split.counts.read:
            raise ValueError(
                f"expected at most {card.class_count:,} characters of {name} and no more than records, nor more "
                f"writers, found {split.characters:,} and {split.writers:,}"
            )
        found = (sum(shard.records for shard in split.shards), sum(shard.manifest_rows for shard in split.shards))
        if found != (split.counts.kept, split.counts.read):
            raise ValueError(
                f"expected {split.counts.kept:,} records and {split.counts.read:,} rows in the shards of {name}, found "
                f"{found[0]:,} and {found[1]:,}"
            )
    named: list[tuple[str, Split | MemberInput]] = list(card.splits.items())
    named += [(f"{member.member} of {member.archive}", member) for member in card.inputs]
    for what, part in named:
        accounted = sum(part.counts.by_status.values())
        if part.counts.read != accounted:
            raise ValueError(
                f"expected read = kept + dropped + rejected for {what}, found {part.counts.read:,} and {accounted:,}"
            )
