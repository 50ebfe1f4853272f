"""A finished data set, opened: its card, its class list, its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.classes import ClassList, ClassListError, parse_classes
from schemas.dataset import CLASSES, Card, DatasetError, read_card


@dataclass(frozen=True)
class Dataset:
    """A finished data set in a local folder."""

    folder: Path
    card: Card
    classes: ClassList

    def manifest(self, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The manifest's rows, of one split or of all, in the order of the shards. Raises DatasetError.

        What its columns mean stands in their metadata, and in docs/format.md.
        """
        splits = list(self.card.splits.values()) if split is None else [self.card.split(split)]
        tables = []
        for path in (self.folder / shard.manifest_path for one in splits for shard in one.shards):
            try:
                tables.append(pq.read_table(path, columns=None if columns is None else list(columns)))
            except (OSError, ValueError) as error:  # Arrow's are among these
                reason = str(error).splitlines()[0]
                raise DatasetError(f"{path}: can't be read ({reason}); copy it again, or convert again") from error
        return pa.concat_tables(tables)


def open_dataset(folder: str | Path) -> Dataset:
    """The data set in a local folder. Raises DatasetError if it isn't whole."""
    card = read_card(folder)
    path = Path(folder) / CLASSES
    try:
        classes = parse_classes(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ClassListError) as error:
        raise DatasetError(f"{path}: expected the class list, found {error}; convert again") from error
    if classes.digest != card.class_digest or len(classes) != card.class_count:
        raise DatasetError(f"{path}: isn't the class list that the card names; restore it, or convert again")
    return Dataset(Path(folder), card, classes)
