"""Exports as Parquet, and the images of shards read without the code under test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from commands import rows_of

from pipeline import parquet

Rows = list[dict[str, object]]


def exported(folder: Path, output: Path, *flags: str) -> Path:
    """An export that must end well; returns its folder."""
    assert parquet.main([str(folder), f"--output={output}", *flags]) == 0
    return output


def kept(folder: Path, split: str) -> Rows:
    """The kept rows of a split, in the order of its shards."""
    rows = [row for row in rows_of(folder, split) if row["status"] == "kept"]
    return sorted(rows, key=lambda row: (row["shard"], row["shard_index"]))


def pixels(folder: Path, row: dict[str, object]) -> np.ndarray:
    """uint8 [size, size] of a kept row, by the rule of the format's page for raw images, by a PNG's own beginning."""
    frame = (folder / str(row["shard"])).read_bytes()[row["shard_offset"] :][: row["shard_bytes"]]
    end = frame.rindex(b"\n\x05label") - 2
    if folder.name == "raw":
        return np.frombuffer(frame, np.uint8, 64 * 64, end - 64 * 64).reshape(64, 64)
    return cv2.imdecode(np.frombuffer(frame[frame.index(b"\x89PNG") : end], np.uint8), cv2.IMREAD_UNCHANGED)
