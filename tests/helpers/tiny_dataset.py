"""Small data sets for the trainer's tests, written without Beam: every image is different, and tells its label."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.tfrecord.frames import encode_example, frame_example, image_encoder
from schemas.classes import ClassList
from schemas.dataset import CARD, CLASSES, Card, Counts, ShardFile, Split, manifest_part_name, shard_name
from schemas.example import FORMAT_VERSION, ImageEncoding
from schemas.manifest import MANIFEST_SCHEMA

CHARACTERS = tuple("零一二三四五六七八九")


def write_dataset(
    folder: Path,
    records: Mapping[str, int],
    *,
    size: int = 16,
    encoding: ImageEncoding = "raw",
    shards: int = 3,
    characters: tuple[str, ...] = CHARACTERS,
) -> Path:
    """A data set of `records[split]` samples, dealt out to `shards` shards a split."""
    folder.mkdir(parents=True)
    classes = ClassList(characters)
    (folder / CLASSES).write_text(classes.text, "utf-8")
    splits = {
        split: _write_split(folder, split, count, size, encoding, shards, len(classes))
        for split, count in records.items()
    }
    steps = dict.fromkeys(("grey", "denoise", "normalize", "binarize", "crop", "resize"), "none")
    config: dict[str, Any] = {"preprocess": {"image_size": size, **steps}, "image_encoding": encoding}
    card = Card(FORMAT_VERSION, config, len(classes), classes.digest, {}, splits, [])
    (folder / CARD).write_text(card.to_json(), "utf-8")
    return folder


def image_of(split: str, number: int, size: int, classes: int) -> tuple[np.ndarray, int]:
    """Sample `number` of a split: noise, and a bright row or column at the place of its label."""
    random = np.random.default_rng([number, len(split)])
    label = int(random.integers(classes))
    image = random.integers(0, 60, (size, size), np.uint8)
    position = 1 + label * (size - 2) // classes
    image[position] = 255 - number % 50
    return image, label


def _write_split(
    folder: Path, split: str, count: int, size: int, encoding: ImageEncoding, shards: int, classes: int
) -> Split:
    frames: list[list[tuple[bytes, int, int]]] = [[] for _ in range(shards)]
    encode = image_encoder(encoding)
    for number in range(count):
        image, label = image_of(split, number, size, classes)
        example = encode_example(encode(image), label, f"{split}/w.gnt/{number}".encode())
        frames[number % shards].append((*frame_example(example), label))
    files = []
    for index, shard in enumerate(frames):
        name, part, content = (
            shard_name(split, index, shards),
            manifest_part_name(split, index, shards),
            b"".join(frame for frame, _, _ in shard),
        )
        (folder / name).write_bytes(content)
        (folder / part).parent.mkdir(exist_ok=True)
        offset, rows = 0, []
        for position, (frame, crc, label) in enumerate(shard):
            record = {"record_index": position * shards + index, "source_offset": 0, "source_bytes": 0}
            names = {"split": split, "writer": "w", "archive": "w.gnt", "member": "w.gnt", "status": "kept"}
            place = {"shard": name, "shard_index": position, "shard_offset": offset, "shard_bytes": len(frame)}
            place |= {"shard_crc32c": crc, "label": label}
            rows.append({"sample_id": f"{split}/w.gnt/{record['record_index']}", **names, **record, **place})
            offset += len(frame)
        pq.write_table(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), folder / part)
        files.append(
            ShardFile(name, len(shard), len(content), hashlib.sha256(content).hexdigest(), part, len(shard), 0, "")
        )
    return Split(Counts(count, count, {}, {}), min(classes, count), 1, files)
