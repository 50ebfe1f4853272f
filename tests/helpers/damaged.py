"""Data sets that a test damages, each in its own copy, and what verify says of them."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.manifest import open_manifest
from pipeline.verify.check import check_dataset
from pipeline.verify.example import read_image
from schemas.dataset import CARD, Card, read_card
from schemas.manifest import MANIFEST_SCHEMA

Edit = Callable[[dict[str, list[object]]], None]


def findings(folder: Path) -> list[str]:
    """What a check in this process finds, a line each."""
    return [str(finding) for finding in check_dataset(str(folder), 1).findings]


def reseal(folder: Path, edit: Callable[[Card], Card] = lambda card: card) -> None:
    """The card again, with the sizes and digests that the files have now: what remains are the deeper checks."""

    def described(path: str) -> tuple[int, str]:
        content = (folder / path).read_bytes()
        return len(content), hashlib.sha256(content).hexdigest()

    card = read_card(folder)
    splits = {}
    for name, split in card.splits.items():
        shards = []
        for shard in split.shards:
            (size, digest), (rows_size, rows_digest) = described(shard.path), described(shard.manifest_path)
            shards.append(
                replace(shard, bytes=size, sha256=digest, manifest_bytes=rows_size, manifest_sha256=rows_digest)
            )
        splits[name] = replace(split, shards=shards)
    (folder / CARD).write_text(edit(replace(card, splits=splits)).to_json())


def part(folder: Path) -> Path:
    """The manifest part that is damaged."""
    return folder / read_card(folder).splits["train"].shards[0].manifest_path


def shard(folder: Path) -> Path:
    """The shard that is damaged: the first of train, of however many."""
    return folder / read_card(folder).splits["train"].shards[0].path


def kept_rows(folder: Path) -> list[dict[str, object]]:
    """The rows of `part`, without those of dropped and rejected records."""
    return [row for row in pq.read_table(part(folder)).to_pylist() if row["status"] == "kept"]


def edit_rows(folder: Path, edit: Edit) -> None:
    """Writes `part` again, its columns edited."""
    columns = pq.read_table(part(folder)).to_pydict()
    edit(columns)
    with open_manifest(str(part(folder))) as manifest:
        manifest.write(pa.table(columns, MANIFEST_SCHEMA))


def first(columns: dict[str, list[object]], status: str) -> int:
    """The place of the first row with a status."""
    return columns["status"].index(status)


def set_at(name: str, value: object, status: str = "kept") -> Edit:
    """An edit: the value of one column in the first row with a status."""

    def edit(columns: dict[str, list[object]]) -> None:
        columns[name][first(columns, status)] = value

    return edit


def write_crc(content: bytearray, begin: int, end: int) -> int:
    """The masked CRC-32C behind the Example content[begin:end]; returns it as the manifest has it, not masked."""
    crc = google_crc32c.value(bytes(content[begin:end]))
    struct.pack_into("<I", content, end, ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    return int(crc)


def change_picture(folder: Path) -> None:
    """Resealed, every digest and CRC fits: only the archive knows better."""
    row, content = kept_rows(folder)[0], bytearray(shard(folder).read_bytes())
    begin = int(row["shard_offset"]) + 12
    end = begin - 16 + int(row["shard_bytes"])
    image = read_image(bytes(content[begin:end]))
    assert image is not None
    # The middle of a raw image, where every crop lies.
    content[content.index(image, begin) + len(image) // 2 + math.isqrt(len(image)) // 2] ^= 0xFF
    crc = write_crc(content, begin, end)
    shard(folder).write_bytes(content)
    edit_rows(folder, set_at("shard_crc32c", crc))
