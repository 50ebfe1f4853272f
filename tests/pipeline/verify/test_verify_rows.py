"""verify: a manifest's row that says something else than its shard, its neighbours or its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from damaged import Edit, edit_rows, findings, first, reseal, set_at

from pipeline.verify.ledger import tally_rows


def duplicate(columns: dict[str, list[object]]) -> None:
    at = first(columns, "dropped")
    for values in columns.values():
        values.insert(at, values[at])


def lose(columns: dict[str, list[object]]) -> None:
    at = first(columns, "dropped")
    for values in columns.values():
        del values[at]


def point_elsewhere(columns: dict[str, list[object]]) -> None:
    kept = [i for i, status in enumerate(columns["status"]) if status == "kept"]
    for name in ("shard_index", "shard_offset", "shard_bytes", "shard_crc32c"):
        values = columns[name]
        values[kept[0]], values[kept[1]] = values[kept[1]], values[kept[0]]


def turn_around(columns: dict[str, list[object]]) -> None:
    for values in columns.values():
        values.reverse()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (duplicate, "expected every sample_id once"),
        (lose, "expected {'"),
        (point_elsewhere, "expected shard_index 0, found 1"),
        (turn_around, "expected rows in the order of their keys"),
        (set_at("label", 3753), "expected label "),
        (set_at("char", "硷"), "expected char "),
        (set_at("tag", "B0A1"), "expected a tag in hex, found 'B0A1'"),
        (set_at("writer", "somebody"), "expected writer '100"),
        (set_at("archive", "other.zip"), "expected archive '100"),
        (set_at("member", "other.gnt"), "expected a member that is on the card"),
        (set_at("split", "test"), "expected split 'train', found 'test'"),
        (set_at("sample_id", "train/1001-c.gnt/999"), "expected sample_id "),
        (set_at("record_index", 4_000_000_000), "expected sample_id "),
        (set_at("status", "lost"), "expected a status with one of its reasons"),
        (set_at("reason", "because", "dropped"), "expected a status with one of its reasons"),
        (set_at("width", 7), "by its width and height"),
        (set_at("height", None), "expected height given"),
        (set_at("crop_width", 60_000), "expected a crop in the bitmap"),
        (set_at("crop_x", None), "expected crop_x given"),
        (set_at("ink_fraction", 1.5), "expected an ink_fraction"),
        (set_at("bitmap_digest", None), "expected bitmap_digest given"),
        (set_at("shard", "test-00000-of-00001.tfrecord"), "expected shard train-00000-of-00002.tfrecord"),
        (set_at("shard_crc32c", 5, "dropped"), "expected shard_crc32c empty, found 5"),
        (set_at("source_offset", 1), "belong to no row"),
    ],
)
def test_a_wrong_row_is_found_however_good_the_digests_are(dataset: Path, edit: Edit, says: str) -> None:
    edit_rows(dataset, edit)
    reseal(dataset)
    found = findings(dataset)
    assert any(says in line for line in found), found
    assert all(len(line.splitlines()) == 1 for line in found)


def test_a_tally_tiles_only_what_is_whole() -> None:
    sizes = [10, 20, 5, 100]
    ends = np.cumsum(sizes)
    rows = pa.table(
        {
            "member": ["a"] * 4,
            "record_index": pa.array(range(4), pa.uint32()),
            "source_offset": pa.array(ends - sizes, pa.uint64()),
            "source_bytes": pa.array(sizes, pa.uint64()),
        }
    )
    whole = tally_rows(rows)["a"]
    assert whole.tiles(135)
    assert not whole.tiles(134)
    parts = [tally_rows(rows.take([3, 1]))["a"], tally_rows(rows.take([0, 2]))["a"]]
    assert sum(parts, type(whole)()) == whole
    for lost in range(4):
        assert not tally_rows(rows.take([i for i in range(4) if i != lost]))["a"].tiles(135)
    assert not tally_rows(rows.take([0, 1, 1, 2, 3]))["a"].tiles(135)
