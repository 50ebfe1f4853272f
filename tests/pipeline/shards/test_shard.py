"""A shard is what sorting all of its rows in memory gives, in however many ranges it was written."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import manifest, shard
from pipeline.shards.config import ConvertConfig
from pipeline.shards.rows import OUTCOMES, ROW, Part, begins
from pipeline.shards.shard import write_shard
from pipeline.shards.slices import Bins, Slice, write_parts
from pipeline.shards.staging import ChunkReceipt
from pipeline.shards.tfrecord.frames import encode_example, frame_example
from schemas.manifest import MANIFEST_SCHEMA, SOURCE_FIELDS

CONFIG = ConvertConfig(num_shards={"train": 2}, image_encoding="png")  # whose images are any bytes
NAME = "train-00000-of-00002.tfrecord"
FATES = [("kept", None), ("kept", None), ("dropped", "outside_class_set"), ("rejected", "blank")]
Row = dict[str, Any]


def rows_of(count: int, seed: int, keys: int) -> list[Row]:
    """Rows of the first of two shards, the keys of many alike; `member` comes from the chunk they are staged in."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        status, reason = FATES[random.integers(4)]
        label = None if reason == "outside_class_set" else int(random.integers(3_000))
        row: Row = {field.name: None for field in SOURCE_FIELDS}
        row |= {"split": "train", "status": status, "reason": reason, "label": label, "char": "啊", "tag": "b0a1"}
        row |= {"record_index": i, "source_offset": 10 * i, "source_bytes": 10, "width": i % 70, "height": 3}
        row |= {"ink_fraction": float(np.float32(random.random())), "bitmap_digest": i}
        if status == "kept":
            row |= {"crop_x": i % 5, "crop_y": 1, "crop_width": 2, "crop_height": 3}
        row |= {"key": int(random.integers(keys)) * ((1 << 63) // keys)}
        row |= {"image": random.bytes(int(random.integers(1, 200))) if status == "kept" else b""}
        rows.append(row)
    return rows


def part_of(rows: list[Row]) -> Part:
    fixed = np.zeros(len(rows), ROW)
    for place, row in enumerate(rows):
        for name in ("key", "bitmap_digest", "source_offset", "source_bytes", "record_index", "ink_fraction", "width"):
            fixed[place][name] = row[name]
        fixed[place]["height"], fixed[place]["tag_code"] = 3, 0xB0A1
        fixed[place]["outcome"] = OUTCOMES.index((row["status"], row["reason"]))
        fixed[place]["label"] = -1 if row["label"] is None else row["label"]
        fixed[place]["crop"] = [row[name] or 0 for name in ("crop_x", "crop_y", "crop_width", "crop_height")]
        fixed[place]["image_bytes"] = len(row["image"])
    return Part(fixed, begins(fixed["image_bytes"]), memoryview(b"".join(row["image"] for row in rows)))


def staged(rows: list[Row], sizes: list[int], folder: Path) -> list[ChunkReceipt]:
    """The rows in parts of these sizes, the last one of what is left; two parts a chunk, a chunk a member."""
    parts, first, receipts = [], 0, []
    for size in (*sizes, len(rows)):
        if own := rows[first : first + size]:
            parts.append(own)
        first += size
    for number in range(0, len(parts), 2):
        own, member = parts[number : number + 2], f"{10_000 + number}-c.gnt"
        for row in (row for part in own for row in part):
            row |= {"sample_id": f"train/{member}/{row['record_index']}", "writer": member[:5], "member": member}
            row |= {"archive": "a.zip"}
        path = str(folder / f"chunk-{number}.rows")
        edges = write_parts(path, map(part_of, own), Bins(2, 0, 2))
        receipts.append(ChunkReceipt("train", member, "a.zip", 0, 1, {}, 0, path, "", edges))
    return receipts


def sorted_in_memory(rows: list[Row], row_group: int) -> tuple[bytes, bytes]:
    """The shard and its manifest part."""
    frames, entries = b"", []
    for row in sorted(rows, key=lambda row: row["key"]):  # stable: equal keys stay as they came
        entry = {field.name: row[field.name] for field in SOURCE_FIELDS}
        if row["status"] == "kept":
            frame, crc = frame_example(encode_example(row["image"], row["label"], row["sample_id"].encode()))
            index = sum("shard" in one for one in entries)
            entry |= {"shard": NAME, "shard_index": index, "shard_offset": len(frames)}
            entry |= {"shard_bytes": len(frame), "shard_crc32c": crc}
            frames += frame
        entries.append(entry)
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(entries, MANIFEST_SCHEMA)
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group, write_page_index=True)
    return frames, sink.getvalue().to_pybytes()


def written(chunks: list[ChunkReceipt], folder: Path) -> tuple[shard.ShardReceipt, bytes, bytes]:
    receipt = write_shard("train", 0, chunks, CONFIG, str(folder / "out"), str(folder / "out/_staging"))
    file = receipt.file
    return receipt, (folder / "out" / file.path).read_bytes(), (folder / "out" / file.manifest_path).read_bytes()


@given(
    st.integers(0, 120),
    st.integers(0, 2**32),
    st.sampled_from([1, 5, 1 << 20]),
    st.lists(st.integers(1, 40), max_size=8),
    st.sampled_from([2_000, 20_000, 1 << 30]),
    st.sampled_from([7, 64, 1 << 20]),
    st.integers(2, 5),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_in_any_ranges_it_is_what_sorting_in_memory_gives(
    count: int, seed: int, keys: int, sizes: list[int], most_bytes: int, row_group: int, most_ranges: int
) -> None:
    rows = rows_of(count, seed, keys)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for module, limit, value in (
            (shard, "_MOST_BYTES", most_bytes),
            (shard, "_RANGE_BYTES", most_bytes // 4),
            (shard, "_ROW_BYTES", 0),
            (shard, "_MOST_RANGES", most_ranges),
            (manifest, "ROW_GROUP_ROWS", row_group),
        ):
            patch.setattr(module, limit, value)
        receipt, frames, part = written(staged(rows, sizes, Path(name))[::-1], Path(name))
        assert sorted(path.name for path in (Path(name) / "out/_staging").iterdir()) == [f"shard-{NAME}-.json"]
    assert (frames, part) == sorted_in_memory(rows, row_group)
    kept = [row for row in rows if row["status"] == "kept"]
    assert (receipt.file.records, receipt.file.manifest_rows) == (len(kept), len(rows))
    assert sum(receipt.counts.values()) == len(rows)
    assert receipt.keys == sum(row["key"] for row in rows) % 2**64
    labels = np.unpackbits(np.frombuffer(bytes.fromhex(receipt.labels), np.uint8))
    assert set(np.flatnonzero(labels).tolist()) == {row["label"] for row in kept}


def test_large_ranges_go_through_files_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "_MOST_BYTES", 200_000)
    monkeypatch.setattr(shard, "_RANGE_BYTES", 50_000)
    monkeypatch.setattr(shard, "_ROW_BYTES", 0)
    at_once: list[int] = []
    read = shard.read_slices

    def watched(slices: list[Slice]) -> Part:
        at_once.append(sum(one.size_bytes for one in slices))
        return read(slices)

    monkeypatch.setattr(shard, "read_slices", watched)
    rows = rows_of(4_000, 1, 1 << 20)
    chunks = staged(rows, [20] * 200, tmp_path)
    assert sum(Path(chunk.path).stat().st_size for chunk in chunks) > 450_000
    _, frames, part = written(chunks, tmp_path)
    assert (frames, part) == sorted_in_memory(rows, 1 << 20)
    assert max(at_once) <= 200_000
    assert len(at_once) > 15


def test_any_number_of_chunks(tmp_path: Path) -> None:
    rows = rows_of(600, 2, 1 << 20)
    chunks = staged(rows, [1] * 600, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        _, frames, part = written(chunks, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (frames, part) == sorted_in_memory(rows, 1 << 20)


@pytest.mark.slow
def test_seventy_thousand_chunks_in_one_shard(tmp_path: Path) -> None:
    """More than the mappings that Linux gives a process."""
    receipt, _, _ = written(staged(rows_of(70, 3, 1 << 20), [1] * 70, tmp_path) * 1_000, tmp_path)
    assert receipt.file.manifest_rows == 70_000
