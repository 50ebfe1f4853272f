"""What the tests of the inspect command share: conversions to look at, and the archives read the plain way."""

from __future__ import annotations

from pathlib import Path

import gnt_files
import numpy as np
from commands import converted, inputs


def both_splits(archives: Path, output: Path) -> Path:
    """The data set of conftest's archives, train in two shards."""
    return converted(output, *inputs(archives), "--num_shards=train=2")


def dirty_set(folder: Path) -> Path:
    """Writer 1 in both splits, with two bitmaps in both; a blank, a tiny and an enormous one; a name full of HTML."""
    shared = gnt_files.records_of("啊阿", seed=5)
    odd = [
        ("埃", np.full((40, 40), 255, np.uint8)),
        ("挨", np.full((3, 3), 9, np.uint8)),
        ("哎", gnt_files.strokes(3, 700, 600)),
    ]
    odd[1][1][0] = 255
    for split, members in {
        "train": {
            "1-c.gnt": shared + gnt_files.records_of("唉", 6),
            "<img src=x onerror=alert(1)>-c.gnt": [*tagged(odd), shared[1]],
        },
        "test": {"1-c.gnt": shared},
    }.items():
        (folder / split).mkdir()
        for name, records in members.items():
            (folder / split / name).write_bytes(gnt_files.member(records))
    return converted(folder / "<b>set & more", *inputs(folder), "--max_reject_fraction=1")


def tagged(records: list[tuple[str, np.ndarray]]) -> list[gnt_files.Record]:
    """(tag, bitmap) for (character, bitmap)."""
    return [(gnt_files.tag(character), bitmap) for character, bitmap in records]


def originals(archives: Path) -> dict[str, tuple[int, bytes, np.ndarray]]:
    """sample_id -> (offset, tag, bitmap), read the plain way."""
    return {
        f"{path.parent.name}/{path.name}/{index}": record
        for path in archives.rglob("*.gnt")
        for index, record in enumerate(gnt_files.parse(path.read_bytes()))
    }
