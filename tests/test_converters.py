"""benchmarks/converters.py gives other people's tools the samples that a conversion keeps, and no others."""

from __future__ import annotations

import runpy
from pathlib import Path

import gnt_files
import numpy as np
import pyarrow.parquet as pq
from commands import converted
from places import ROOT


def test_the_samples_are_those_that_a_conversion_keeps(tmp_path: Path) -> None:
    members = [tmp_path / "train" / f"{writer}-c.gnt" for writer in (1001, 1002)]
    members[0].parent.mkdir()
    for number, path in enumerate(members):
        records = gnt_files.records_of("啊阿埃挨硷A哎唉", seed=number)  # two outside the class list
        records.insert(3, (gnt_files.tag("哀"), np.full((40, 40), 255, np.uint8)))  # without ink
        data = bytearray(gnt_files.member(records))
        data[gnt_files.parse(bytes(data))[1][0]] ^= 1  # a header that disagrees with itself
        path.write_bytes(data)
    folder = converted(
        tmp_path / "set", f"--input={tmp_path}/train", "--num_shards=train=2", "--max_reject_fraction=0.5"
    )

    parts = [pq.read_table(part).to_pylist() for part in sorted(folder.glob("manifest/*.parquet"))]
    rows = sorted((row["member"], row["record_index"], row) for rows in parts for row in rows)
    statuses = [row["status"] for _, _, row in rows]
    assert [statuses.count(status) for status in ("kept", "dropped", "rejected")] == [10, 4, 4]
    kept = [(row["sample_id"], row["label"], _image(folder, row)) for _, _, row in rows if row["status"] == "kept"]

    samples = runpy.run_path(str(ROOT / "benchmarks" / "converters.py"))["samples"]
    made = [(name, label, image.tobytes()) for path in members for name, label, image in samples(str(path))]
    assert made == kept


def _image(folder: Path, row: dict[str, object]) -> bytes:
    """By the rule of the format's page."""
    frame = (folder / str(row["shard"])).read_bytes()[row["shard_offset"] :][: row["shard_bytes"]]
    end = frame.rindex(b"\n\x05label") - 2
    return frame[end - 64 * 64 : end]
