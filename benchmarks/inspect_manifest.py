"""The summary, an SQL query and the report on a manifest of 1.2 million rows: seconds, as whole processes.

    python benchmarks/inspect_manifest.py
    python benchmarks/inspect_manifest.py --rows 300000 --repeats 5 --json out.json

The rows are invented: 3,754 characters of each writer, a few dropped, rejected or repeated. Every shard holds a single
Example, which all rows name, so the report has as many stored samples as a real one, but no originals.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from process_tree import measure

from pipeline.shards.config import ConvertConfig, library_versions
from pipeline.shards.tfrecord.frames import encode_example, frame_example
from schemas.dataset import CARD, CLASSES, Card, Counts, MemberInput, ShardFile, Split, manifest_part_name, shard_name
from schemas.example import FORMAT_VERSION
from schemas.manifest import BLANK, MANIFEST_SCHEMA, OUTSIDE_CLASS_SET

SHARDS = {"train": 16, "test": 4}
SQL = "SELECT char, count(*) AS records, avg(ink_fraction) AS ink FROM manifest GROUP BY char ORDER BY ink DESC"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_200_000, help="of the manifest (default: 1,200,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command (default: 3)")
    parser.add_argument("--json", type=Path, help="write every measurement there")
    parser.add_argument("--work", type=Path, help="folder of the data set (default: a temporary one)")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="inspect-benchmark-"))
    rows = make_dataset(work / "dataset", arguments.rows)
    measured = [_measure(name, command, arguments.repeats) for name, command in _commands(work).items()]
    print(f"{rows:,} rows\n{'command':<16} {'seconds':>8} {'largest process, MB':>20}")
    for row in measured:
        print(f"{row['command']:<16} {row['median_seconds']:>8} {row['largest_process_mb']:>20,}")
    report_bytes = (work / "report.html").stat().st_size
    print(f"the report: {report_bytes:,} bytes")
    if arguments.json:
        result = {"cores": os.cpu_count(), "rows": rows, "commands": measured, "report_bytes": report_bytes}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if not arguments.work:
        shutil.rmtree(work)


def _commands(work: Path) -> dict[str, list[str]]:
    inspect = [sys.executable, "-m", "pipeline.inspect", str(work / "dataset")]
    return {
        "--help": [*inspect[:3], "--help"],
        "summary": inspect,
        "--sql": [*inspect, "--sql", SQL, "--format", "csv"],
        "show": [*inspect, "show", "--char", "啊"],
        "--html": [*inspect, "--html", str(work / "report.html")],
    }


def _measure(name: str, command: list[str], repeats: int) -> dict[str, object]:
    runs = [measure(command) for _ in range(repeats)]
    return {
        "command": name,
        "median_seconds": round(statistics.median(run.seconds for run in runs), 2),
        "seconds": [round(run.seconds, 2) for run in runs],
        "largest_process_mb": round(max(run.largest_bytes for run in runs) / 1e6),
    }


def make_dataset(folder: Path, rows: int) -> int:
    """A card, a class list and a manifest of about so many rows, but no shards; returns how many rows it became."""
    config = ConvertConfig(num_shards=SHARDS)
    characters = config.classes.characters
    writers = max(2, round(rows / len(characters)))
    train = max(1, writers * 4 // 5)
    random = np.random.default_rng(7)
    splits, inputs = {}, []
    for split, names in (("train", range(1001, 1001 + train)), ("test", range(1001 + train, 1001 + writers))):
        table = _rows(split, [str(name) for name in names], characters, random)
        parts = np.array_split(np.arange(table.num_rows), SHARDS[split])
        files = [_write_part(folder, split, index, table.take(part)) for index, part in enumerate(parts)]
        members = [_member(split, str(name), table) for name in names]
        inputs += members
        splits[split] = Split(_counts(table), len(characters), len(members), files)
    card = Card(
        FORMAT_VERSION, config.as_json(), len(characters), config.classes.digest, library_versions(), splits, inputs
    )
    (folder / CLASSES).write_text(config.classes.text)
    (folder / CARD).write_text(card.to_json())
    return sum(split.counts.read for split in splits.values())


def _rows(split: str, writers: list[str], characters: tuple[str, ...], random: np.random.Generator) -> pa.Table:
    count = len(writers) * len(characters)
    label = np.tile(np.arange(len(characters)), len(writers))
    index = label.copy()
    draw = random.random(count)
    status = np.select([draw < 0.0003, draw < 0.001], ["rejected", "dropped"], "kept")
    reason = np.select([draw < 0.0003, draw < 0.001], [BLANK, OUTSIDE_CLASS_SET], "")
    width, height = random.integers(20, 150, (2, count))
    member = np.repeat([f"{writer}-c.gnt" for writer in writers], len(characters))
    kept = status == "kept"
    frame, crc = _frame()
    columns = {
        "sample_id": [f"{split}/{m}/{i}" for m, i in zip(member.tolist(), index.tolist(), strict=True)],
        "split": np.repeat(split, count),
        "status": status,
        "reason": pa.array(reason, mask=kept),
        "label": pa.array(label, mask=status == "dropped"),
        "char": np.tile(characters, len(writers)),
        "tag": np.tile([character.encode("gbk").hex() for character in characters], len(writers)),
        "writer": np.repeat(writers, len(characters)),
        "archive": member,
        "member": member,
        "record_index": index,
        "source_offset": index * 5_000,
        "source_bytes": 10 + width * height,
        "width": width,
        "height": height,
        "ink_fraction": random.beta(4, 16, count),
        "crop_x": np.zeros(count),
        "crop_y": np.zeros(count),
        "crop_width": width,
        "crop_height": height,
        "bitmap_digest": np.where(draw > 0.9999, 1, random.integers(0, 2**63, count)),
        "shard": pa.array(np.repeat(shard_name(split, 0, SHARDS[split]), count), mask=~kept),
        "shard_index": pa.array(np.zeros(count), mask=~kept),
        "shard_offset": pa.array(np.zeros(count), mask=~kept),
        "shard_bytes": pa.array(np.full(count, len(frame)), mask=~kept),
        "shard_crc32c": pa.array(np.full(count, crc), mask=~kept),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in MANIFEST_SCHEMA]
    # In a real manifest the order is that of a hash too.
    return pa.Table.from_arrays(arrays, schema=MANIFEST_SCHEMA).take(random.permutation(count))


def _write_part(folder: Path, split: str, index: int, table: pa.Table) -> ShardFile:
    path = manifest_part_name(split, index, SHARDS[split])
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / path, compression="zstd")
    content = (folder / path).read_bytes()
    frame, _ = _frame()
    (folder / shard_name(split, index, SHARDS[split])).write_bytes(frame)
    return ShardFile(
        path=shard_name(split, index, SHARDS[split]),
        records=_counts(table).kept,
        bytes=len(frame),
        sha256=hashlib.sha256(frame).hexdigest(),
        manifest_path=path,
        manifest_rows=table.num_rows,
        manifest_bytes=len(content),
        manifest_sha256=hashlib.sha256(content).hexdigest(),
    )


def _frame() -> tuple[bytes, int]:
    """The one Example of every shard, framed, and its CRC: some strokes, about as hard to pack as a character's."""
    image = np.zeros((64, 64), np.uint8)
    points = np.random.default_rng(7).integers(8, 56, (12, 2)).tolist()
    for begin, end in itertools.pairwise(points):
        cv2.line(image, begin, end, 255, 3, cv2.LINE_AA)
    return frame_example(encode_example(image.tobytes(), 0, b"train/1001-c.gnt/0"))


def _member(split: str, writer: str, table: pa.Table) -> MemberInput:
    name = f"{writer}-c.gnt"
    own = table.filter(pc.equal(table["writer"], writer))
    return MemberInput(split, f"/archives/{name}", name, name, writer, 19_000_000, _counts(own))


def _counts(table: pa.Table) -> Counts:
    found = {row["values"]: row["counts"] for row in table["status"].value_counts().to_pylist()}
    kept, dropped, rejected = (found.get(status, 0) for status in ("kept", "dropped", "rejected"))
    empty = Counts(table.num_rows, kept, {}, {})
    return dataclasses.replace(
        empty,
        dropped={OUTSIDE_CLASS_SET: dropped} if dropped else {},
        rejected={BLANK: rejected} if rejected else {},
    )


if __name__ == "__main__":
    main()
