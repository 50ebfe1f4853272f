"""A finished data set read back, here or behind a URL: its card and its manifest, without what builds shards."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.steps.settings import PreprocessConfig
from schemas.dataset import CARD, Card, parse_card
from schemas.errors import UserError, explained


def read_file(folder: str, name: str) -> bytes | None:
    """The bytes of a file of the data set; None if there is no such file."""
    path = storage.join(folder, name)
    with explained(f"read {path}"):
        return storage.read_if_there(path)


def read_card(folder: str) -> tuple[Card, bytes]:
    """The card of a data set, here or behind a URL, and its bytes.

    Raises DamagedCard for one that isn't what was written, another UserError where there is no data set to read.
    """
    content = read_file(folder, CARD)
    if content is None:
        if not storage.of(folder).is_remote and not os.path.exists(folder):
            raise UserError(f"{folder}: expected the folder of a data set, found none; check the path")
        raise UserError(
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


def read_rows(path: str) -> pa.Table:
    """A part of the manifest, whole, here or behind a URL."""
    with explained(f"read {path}"):
        return pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read()
