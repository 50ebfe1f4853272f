"""A finished data set, opened: its card, its class list, its manifest, and the records of a split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.reader.cache import ShardCache
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import ClassList, ClassListError, parse_classes
from schemas.dataset import CARD, CLASSES, Card, DatasetError, ShardFile, parse_card
from schemas.errors import UserError, explained

if TYPE_CHECKING:
    from pipeline.reader.records import Records

_READ_AT_ONCE = 16  # manifest parts of a store


@dataclass(frozen=True)
class Dataset:
    """A finished data set, in a folder or behind a URL."""

    folder: str
    card: Card
    classes: ClassList
    cache: ShardCache | None = None
    """Of the shards, where they lie in a store; without one they are read by ranges."""

    @property
    def is_remote(self) -> bool:
        return storage.of(self.folder).is_remote

    def records(self, split: str, where: Any = None) -> Records:
        """The kept records of a split, in the order of its shards, or those of them that `where` chooses.

        `where` is a condition on the manifest's columns, as `"writer < '1100' AND ink_fraction > 0.05"`, or a
        pyarrow.compute.Expression. Raises DatasetError for shards that aren't whole, UserError for another condition.
        """
        from pipeline.reader.records import Records

        return Records(self, split, where)

    def manifest(self, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The manifest's rows, of one split or of all, in the order of the shards. Raises UserError.

        What its columns mean stands in their metadata, and in docs/format.md.
        """
        splits = list(self.card.splits.values()) if split is None else [self.card.split(split)]
        return pa.concat_tables(self.parts([shard for one in splits for shard in one.shards], columns))

    def parts(self, shards: Sequence[ShardFile], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """The manifest part of each shard. Raises UserError."""

        def read(shard: ShardFile) -> pa.Table:
            path = storage.join(self.folder, shard.manifest_path)
            try:
                return read_rows(path, columns)
            except (OSError, ValueError) as error:  # Arrow's are among these
                reason = str(error).splitlines()[0]
                raise DatasetError(f"{path}: can't be read ({reason}); copy it again, or convert again") from error

        if not self.is_remote:
            yield from map(read, shards)
            return
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            yield from pool.map(read, shards)


def open_dataset(folder: str | Path, cache_bytes: int | None = None) -> Dataset:
    """The data set in a folder or behind a URL, s3://bucket/folder. Raises UserError if it isn't whole.

    With `cache_bytes` the shards of a store are fetched whole and kept on this machine's disk, in so much room at most,
    of all data sets together. It is for whoever reads most of a data set; without it a batch asks for its ranges.
    """
    folder = os.fspath(folder).rstrip("/") or "/"
    card, _ = read_card(folder)
    path = storage.join(folder, CLASSES)
    try:
        classes = parse_classes((read_file(folder, CLASSES) or b"").decode())
    except (UserError, UnicodeDecodeError, ClassListError) as error:
        raise DatasetError(f"{path}: expected the class list, found {error}; convert again") from error
    if classes.digest != card.class_digest or len(classes) != card.class_count:
        raise DatasetError(f"{path}: isn't the class list that the card names; restore it, or convert again")
    if cache_bytes is None or not storage.of(folder).is_remote:
        return Dataset(folder, card, classes)
    return Dataset(folder, card, classes, ShardCache(folder, card, cache_bytes))


def read_file(folder: str, name: str) -> bytes | None:
    """The bytes of a file of the data set; None if there is no such file."""
    path = storage.join(folder, name)
    with explained(f"read {path}"):
        return storage.read_if_there(path)


def read_card(folder: str) -> tuple[Card, bytes]:
    """The card of a data set, here or behind a URL, and its bytes.

    Raises DamagedCard for one that isn't what was written, another UserError where there is no data set to read.
    """
    content = None if not storage.of(folder).is_remote and not os.path.exists(folder) else read_file(folder, CARD)
    if content is None:
        if not storage.of(folder).is_remote and not os.path.exists(folder):
            raise DatasetError(f"{folder}: expected the folder of a data set, found none; name one, or convert first")
        raise DatasetError(
            f"{folder}: expected {CARD}, found none; the conversion isn't finished, run its command again, or this is "
            "another folder"
        )
    return parse_card(content, storage.join(folder, CARD)), content


def preprocess_config(card: Card) -> PreprocessConfig:
    """The steps as the card has them. Raises UserError for ones that this release doesn't know."""
    try:
        return PreprocessConfig(**card.config["preprocess"])
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"the card's settings can't be used here ({error}); use the release that wrote it") from error


def read_rows(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A part of the manifest, whole or some of its columns, here or behind a URL."""
    with explained(f"read {path}"):
        if not storage.of(path).is_remote:
            return pq.ParquetFile(path, memory_map=True).read(columns)
        return pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read(columns)
