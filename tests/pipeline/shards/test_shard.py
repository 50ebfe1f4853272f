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

from pipeline.shards import manifest, shard, staging
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import write_shard
from pipeline.shards.staging import StagedBatch
from pipeline.shards.tfrecord.frames import encode_example, frame_example
from schemas.manifest import MANIFEST_SCHEMA, SOURCE_FIELDS

CONFIG = ConvertConfig(num_shards={"train": 2}, image_encoding="png")  # whose images are any bytes
NAME = "train-00000-of-00002.tfrecord"
OUTCOMES = [("kept", None), ("kept", None), ("dropped", "outside_class_set"), ("rejected", "blank")]
Row = dict[str, Any]


def rows_of(count: int, seed: int, keys: int) -> list[Row]:
    """Rows of the first of two shards, the keys of many alike."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        member = f"{random.integers(1001, 1004)}-c.gnt"
        status, reason = OUTCOMES[random.integers(4)]
        label = None if reason == "outside_class_set" else int(random.integers(3_000))
        row = {field.name: None for field in SOURCE_FIELDS}
        row |= {"sample_id": f"train/{member}/{i}", "split": "train", "status": status, "reason": reason}
        row |= {"label": label, "char": "啊", "tag": "b0a1", "writer": member[:4], "archive": "a.zip", "member": member}
        row |= {"record_index": i, "source_offset": 10 * i, "source_bytes": 10, "width": i % 70 or None}
        row |= {"ink_fraction": float(random.random()) if status == "kept" else None, "bitmap_digest": i or None}
        row |= {"key": int(random.integers(keys)) * ((1 << 63) // keys)}
        row |= {"image": random.bytes(int(random.integers(1, 200))) if status == "kept" else b""}
        rows.append(row)
    return rows


def staged(rows: list[Row], sizes: list[int], folder: Path) -> list[StagedBatch]:
    """The rows in batches of these sizes, the last one of what is left; two batches a file."""
    batches, first, number = [], 0, 0
    for size in (*sizes, len(rows)):
        own = rows[first : first + size]
        first += size
        if own:
            path = str(folder / f"chunk-{number // 2}-{number}.arrow")
            table = pa.Table.from_pylist(own, staging.STAGED_SCHEMA)
            _, [(_, _, begin, length, crc)] = staging.write_staged_chunk(path, [table], 2)
            batches.append(StagedBatch(("m", number, 0), path, 0, begin, length, crc))
            number += 1
    return batches


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


def written(batches: list[StagedBatch], folder: Path) -> tuple[shard.ShardReceipt, bytes, bytes]:
    receipt = write_shard("train", 0, batches, CONFIG, str(folder / "out"), str(folder / "out/_staging"))
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
            (shard, "_BATCH_BYTES", 0),
            (shard, "_MOST_RANGES", most_ranges),
            (manifest, "ROW_GROUP_ROWS", row_group),
        ):
            patch.setattr(module, limit, value)
        batches = staged(rows, sizes, Path(name))
        receipt, frames, part = written(batches[::-1], Path(name))
        assert sorted(path.name for path in (Path(name) / "out/_staging").iterdir()) == [f"shard-{NAME}.json"]
    assert (frames, part) == sorted_in_memory(rows, row_group)
    kept = [row for row in rows if row["status"] == "kept"]
    assert (receipt.file.records, receipt.file.manifest_rows) == (len(kept), len(rows))
    assert sum(n for kinds in receipt.members.values() for n in kinds.values()) == len(rows)
    labels = np.unpackbits(np.frombuffer(bytes.fromhex(receipt.labels), np.uint8))
    assert set(np.flatnonzero(labels).tolist()) == {row["label"] for row in kept}


def test_large_ranges_go_through_files_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "_MOST_BYTES", 200_000)
    monkeypatch.setattr(shard, "_RANGE_BYTES", 50_000)
    monkeypatch.setattr(shard, "_BATCH_BYTES", 0)
    at_once: list[int] = []
    read = shard.read_batches

    def watched(batches: Any) -> list[pa.RecordBatch]:
        staged = list(batches)
        at_once.append(sum(batch.size_bytes for batch in staged))
        return read(staged)

    monkeypatch.setattr(shard, "read_batches", watched)
    rows = rows_of(2_000, 1, 1 << 20)
    batches = staged(rows, [20] * 100, tmp_path)
    assert sum(batch.size_bytes for batch in batches) > 500_000
    _, frames, part = written(batches, tmp_path)
    assert (frames, part) == sorted_in_memory(rows, 1 << 20)
    assert max(at_once) <= 200_000
    assert len(at_once) > 20


def test_any_number_of_batches_and_files(tmp_path: Path) -> None:
    rows = rows_of(600, 2, 1 << 20)
    batches = staged(rows, [1] * 600, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        _, frames, part = written(batches, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (frames, part) == sorted_in_memory(rows, 1 << 20)


@pytest.mark.slow
def test_seventy_thousand_batches_in_one_shard(tmp_path: Path) -> None:
    """More than the mappings that Linux gives a process."""
    rows = rows_of(70, 3, 1 << 20)
    batches = staged(rows, [1] * 70, tmp_path)
    many = [
        StagedBatch(("m", i, 0), one.path, one.batch, one.begin, one.size_bytes, one.crc32c)
        for i, one in enumerate(batches * 1_000)
    ]
    receipt, _, _ = written(many, tmp_path)
    assert receipt.file.manifest_rows == 70_000
