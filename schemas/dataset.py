"""dataset.json, the card of a data set: what it holds, how it was made, and every path in it.

The card is written last. A folder without one is an unfinished conversion, and every reader says so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from schemas.errors import UserError
from schemas.example import FORMAT_VERSION, IMAGE_ENCODINGS

CARD = "dataset.json"
CLASSES = "classes.txt"
TFDS_INFO = "dataset_info.json"
TFDS_FEATURES = "features.json"
TFDS_LABELS = "label.labels.txt"
SIDE_FILES = (CLASSES, TFDS_LABELS, TFDS_INFO, TFDS_FEATURES)
LOCK = "_lock.json"
"""Held by a conversion at work in the folder."""
MANIFEST_FOLDER = "manifest"
STAGING_FOLDER = "_staging"

SPLITS = ("train", "validation", "test")
MAX_SHARDS = 99_999
"""What five digits in a file's name can count."""


class DatasetError(UserError):
    """A data set that can't be read."""


class DamagedCard(DatasetError):
    """A card that isn't what was written."""


_NUMBERS = r"-\d{5}-of-\d{5}"
_OWN_NAME = re.compile(
    rf"({'|'.join(SPLITS)}){_NUMBERS}\.tfrecord|{MANIFEST_FOLDER}/({'|'.join(SPLITS)}){_NUMBERS}\.parquet"
)


def shard_name(split: str, index: int, count: int) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def is_own_name(path: str) -> bool:
    """Whether a path relative to a data set's folder is one that a conversion writes."""
    return path == CARD or path in SIDE_FILES or bool(_OWN_NAME.fullmatch(path))


def index_name(shard: str) -> str:
    """The index file of a shard for NVIDIA DALI's reader, if someone had it written."""
    return shard.removesuffix(".tfrecord") + ".idx"


def manifest_part_name(split: str, index: int, count: int) -> str:
    return f"{MANIFEST_FOLDER}/{split}-{index:05d}-of-{count:05d}.parquet"


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
        fields = asdict(self)
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
        card: Card = _parsed(Card, found, "the card")
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


def _dumps(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, indent=1)


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dumps(fields).encode("utf-8", "surrogatepass")).hexdigest()


_MOST = 2**63 - 1


def _parsed(cls: Any, found: Any, what: str) -> Any:
    """A part of the card, of which fields that this release doesn't know are left out. Raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError(f"expected {what} as an object, found {_shown(found)}")
    values = {}
    for field in fields(cls):
        if field.name not in found:
            if field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"expected {field.name} of {what}, found none")
            continue  # of a later format than the card's
        values[field.name] = _value(str(field.type), found[field.name], f"{field.name} of {what}")
    return cls(**values)


def _value(kind: str, found: Any, what: str) -> Any:
    if kind in _PARSED:
        return _parsed(_PARSED[kind], found, what)
    outer, _, inner = kind.removesuffix("]").partition("[")
    if outer == "Sequence" and isinstance(found, list):
        return [_value(inner, one, f"{what}, {i:,}") for i, one in enumerate(found)]
    if outer == "Mapping" and isinstance(found, dict):
        return {name: _value(inner.partition(", ")[2], one, f"{what}, {name}") for name, one in found.items()}
    if kind == "int" and type(found) is int and 0 <= found <= _MOST:
        return found
    if kind == "Any" or (kind == "str" and isinstance(found, str)):
        return found
    raise ValueError(f"expected {_EXPECTED.get(outer, outer)} for {what}, found {_shown(found)}")


_PARSED: dict[str, type] = {cls.__name__: cls for cls in (ShardFile, Counts, Split, MemberInput)}
_EXPECTED = {"int": "a count", "str": "a text", "Sequence": "a list", "Mapping": "an object"}


def _shown(found: Any) -> str:
    return repr(found) if len(repr(found)) < 50 else f"{repr(found)[:50]} …"


def _check_counts(card: Card) -> None:
    """Raises ValueError where the counts can't be: they are what a reader makes room by."""
    steps, encoding = card.config.get("preprocess"), card.config.get("image_encoding")
    if not isinstance(steps, dict) or encoding not in IMAGE_ENCODINGS:
        raise ValueError(f"expected preprocess and image_encoding in its config, found {_shown(card.config)}")
    if _value("int", steps.get("image_size"), "image_size") == 0:
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
