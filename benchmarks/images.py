"""hwdb parquet on finished data sets: time, memory, size; and what load_dataset and mlcroissant read of it.

    python benchmarks/images.py --data RAW_SHARDS PNG_SHARDS --work FOLDER
    python benchmarks/images.py --data SHARDS --work FOLDER --copies 64    # its train shard so many times over, as one

Every image that datasets and mlcroissant (where it is installed) give is compared with the shards, with its name.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from process_tree import measure

from pipeline import open_dataset
from pipeline.shards.manifest import open_manifest
from pipeline.verify.example import decode_image, read_image
from schemas.dataset import CARD, CLASSES, read_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--copies", type=int, default=1, metavar="N")
    flags = parser.parse_args()
    flags.work.mkdir(parents=True, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=str(flags.work / "home"))
    for data in flags.data:
        folder, output = data, flags.work / "out"
        if flags.copies > 1:
            folder = multiplied(data, flags.work / "many", flags.copies)
        for left in (output, flags.work / "cache"):  # datasets would give what it has kept of a folder by this name
            shutil.rmtree(left, ignore_errors=True)
        done = measure([sys.executable, "-m", "pipeline.parquet", str(folder), "--output", str(output)])
        shards = sum(path.stat().st_size for path in folder.glob("*.tfrecord"))
        files = sum(path.stat().st_size for path in output.glob("data/*"))
        records = sum(split.counts.kept for split in read_card(folder).splits.values())
        memory = f"largest {done.largest_bytes / 1e6:,.0f} MB, all {done.tree_bytes / 1e6:,.0f} MB"
        sizes = f"shards {shards:,} bytes, Parquet {files:,}, {files / shards:.3f} of them"
        print(f"{data}: {records:,} images, {done.seconds:.1f} s, {memory}; {sizes}", flush=True)
        if flags.copies == 1:
            compare(folder, output, flags.work)


def compare(folder: Path, output: Path, work: Path) -> None:
    expected = {name: (char, image) for name, char, image in stored(folder)}
    for reader in (by_datasets, by_mlcroissant):
        began, left = time.monotonic(), dict(expected)
        try:
            for name, char, image in reader(output, work):
                wanted_char, wanted = left.pop(name)
                assert wanted_char == char
                assert np.array_equal(wanted, image)
        except ImportError as error:
            print(f"  {reader.__name__}: {error}")
            continue
        assert not left, f"{reader.__name__}: {len(left):,} are missing"
        print(f"  {reader.__name__}: {len(expected):,} equal in pixels and names, {time.monotonic() - began:.1f} s")


def stored(folder: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """(sample_id, character, image) of every kept record, from the shards."""
    data = open_dataset(folder)
    shards = {path.name: path.read_bytes() for path in folder.glob("*.tfrecord")}
    columns = ["status", "sample_id", "char", "shard", "shard_offset", "shard_bytes"]
    for row in data.manifest(columns=columns).to_pylist():
        if row["status"] == "kept":
            begin, end = row["shard_offset"], row["shard_offset"] + row["shard_bytes"]
            example = shards[row["shard"]][begin + 12 : end - 4]
            image = decode_image(read_image(example) or b"", data.card.image_size, data.card.image_encoding)
            yield row["sample_id"], row["char"], image


def by_datasets(output: Path, work: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    from datasets import load_dataset

    for split in load_dataset(str(output), cache_dir=str(work / "cache")).values():
        names = split.features["label"]
        for row in split:
            yield row["sample_id"], names.int2str(row["label"]), np.asarray(row["image"])


def by_mlcroissant(output: Path, _: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    import mlcroissant

    data = mlcroissant.Dataset(str(output / "croissant.json"))
    names = {row["classes/label"]: row["classes/name"] for row in data.records("classes")}
    for row in data.records("samples"):
        name = row["samples/sample_id"].decode()
        yield name, names[row["samples/label"]], np.asarray(row["samples/image"])


def multiplied(data: Path, folder: Path, copies: int) -> Path:
    """A data set of one shard, in which train's first stands `copies` times."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "manifest").mkdir(parents=True)
    shutil.copy(data / CLASSES, folder)
    card = read_card(data)
    split = card.splits["train"]
    (file,) = split.shards
    rows = pq.ParquetFile(data / file.manifest_path).read()
    place = rows.schema.get_field_index("shard_offset")
    content = (data / file.path).read_bytes()
    digest, parts = hashlib.sha256(), []
    with (folder / file.path).open("wb") as shard:
        for number in range(copies):
            shard.write(content)
            digest.update(content)
            offsets = rows["shard_offset"].to_numpy(zero_copy_only=False) + number * len(content)
            parts.append(rows.set_column(place, rows.schema.field(place), pa.array(offsets, pa.uint64())))
    with open_manifest(str(folder / file.manifest_path)) as manifest:
        manifest.write(pa.concat_tables(parts))
    kept = split.counts.kept * copies
    counts = replace(split.counts, read=split.counts.read * copies, kept=kept, dropped={}, rejected={})
    one = replace(file, records=kept, manifest_rows=counts.read, bytes=len(content) * copies, sha256=digest.hexdigest())
    (folder / CARD).write_text(
        replace(card, splits={"train": replace(split, counts=counts, shards=[one])}, inputs=[]).to_json()
    )
    return folder


if __name__ == "__main__":
    main()
